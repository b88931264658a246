"""What held when: values that change while the journal grows, for who explains afterwards why something happened."""

from bisect import bisect_left
from typing import Generic, TypeVar

CHANGES_MAX = 200  # then the oldest is forgotten; settings have some kB each, and nobody changes them so often by hand

T = TypeVar("T")


class History(Generic[T]):
    """The values that something had, each from an entry of the journal on."""

    def __init__(self, first: T) -> None:
        self._since = [0]  # entries that there were when the value was set; rising
        self._values = [first]

    def note(self, entries: int, value: T) -> None:
        """It changed when there were so many entries. What was noted of later ones is forgotten: the journal was rewound."""
        kept = bisect_left(self._since, entries)
        self._since[kept:], self._values[kept:] = [entries], [value]
        del self._since[:-CHANGES_MAX], self._values[:-CHANGES_MAX]

    def at(self, seq: int) -> tuple[T] | None:
        """The value when the entry of this number was written, in a tuple; `None` if that is forgotten."""
        index = bisect_left(self._since, seq) - 1
        return (self._values[index],) if index >= 0 else None
