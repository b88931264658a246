"""Inquiry storms: who asks for the fate of one reference too often within a minute is told to wait.

NPCI asks banks to wait 45 to 90 s before the first inquiry and to send at most three within two hours (circulars of April and May
2025, after inquiry storms had taken UPI down). The limit here is the configuration's.
"""

import math

WINDOW_MS = 60_000
REFERENCES_MAX = 50_000  # in each of two generations: 10 MB; beyond it the older one is forgotten early


class InquiryLimit:
    """At most `per_window` inquiries of one reference in a window of a minute, which opens with the first one."""

    def __init__(self, per_window: int) -> None:
        self._per_window = per_window
        self._current: dict[str, tuple[int, int]] = {}  # reference: start of its window in ms, inquiries in it
        self._previous: dict[str, tuple[int, int]] = {}
        self._turned_ms = 0

    def retry_after_s(self, reference: str, now_ms: int) -> int | None:
        """Counts one inquiry. `None`: let it through; otherwise for how many seconds to refuse."""
        # What is older than two turns can be forgotten: its window is closed.
        if now_ms >= self._turned_ms + WINDOW_MS or len(self._current) >= REFERENCES_MAX:
            self._previous, self._current, self._turned_ms = self._current, {}, now_ms
        start_ms, count = self._current.get(reference) or self._previous.get(reference) or (now_ms, 0)
        if now_ms >= start_ms + WINDOW_MS:
            start_ms, count = now_ms, 0
        self._current[reference] = (start_ms, count + 1)
        if count < self._per_window:
            return None
        return math.ceil((start_ms + WINDOW_MS - now_ms) / 1000)
