"""Lengths of time with a unit, so that a number without one can never be read as the wrong one."""

import re

MS_PER_UNIT = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|min|h|d)")
DURATION_MS_MAX = 366 * 86_400_000  # the longest deadlines in payments are some months; more is a slip of the unit


class Duration(str):
    """A length of time as written, such as `"250ms"`; `ms` and `s` are its value. Raises ValueError for anything else."""

    __slots__ = ("ms",)
    ms: float

    def __new__(cls, text: str) -> "Duration":
        match = DURATION.fullmatch(text)
        if match is None:
            raise ValueError(f'{text!r} is not a duration; write a number with a unit, such as "250ms", "1.5s", "2min" or "7d"')
        ms = float(match[1]) * MS_PER_UNIT[match[2]]
        if ms > DURATION_MS_MAX:
            raise ValueError(f"{text!r} is longer than a year")
        self = super().__new__(cls, text)
        self.ms = ms
        return self

    @property
    def s(self) -> float:
        """The length in seconds."""
        return self.ms / 1_000
