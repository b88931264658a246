"""Local days: no moment is in two of them, and none in nobody's."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.days import DAY, day_of, end_ms

HOUR_MS = 3_600_000

# Clocks that change at midnight, just after it, by half an hour, that leave out a day, or that have one twice.
ZONES = [
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "America/Juneau",
]


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("zone", "day", "ends", "hours"),
    [
        ("Asia/Kolkata", "2026-01-31", "2026-01-31T18:30:00+00:00", 24),
        ("America/New_York", "2026-03-08", "2026-03-09T04:00:00+00:00", 23),
        ("America/New_York", "2026-11-01", "2026-11-02T05:00:00+00:00", 25),
        # There is no 00:00 on 18 October: the day before ends where the clock jumps to 01:00.
        ("America/Sao_Paulo", "2015-10-17", "2015-10-18T03:00:00+00:00", 24),
        ("America/Sao_Paulo", "2015-10-18", "2015-10-19T02:00:00+00:00", 23),
        # 23:00 to 24:00 comes twice.
        ("America/Sao_Paulo", "2016-02-20", "2016-02-21T03:00:00+00:00", 25),
        # 00:00 comes twice, as the clock is put back at 00:01: the day ends the second time.
        ("America/St_Johns", "2010-11-06", "2010-11-07T03:30:00+00:00", 25),
        ("Australia/Lord_Howe", "2026-04-05", "2026-04-05T13:30:00+00:00", 24.5),
        ("Pacific/Apia", "2011-12-29", "2011-12-30T10:00:00+00:00", 24),
        ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00+00:00", 0),
    ],
)
def test_a_day_ends_with_its_last_moment(zone: str, day: str, ends: str, hours: float):
    local, which = ZoneInfo(zone), date.fromisoformat(day)
    assert end_ms(which, local) == ms(ends)
    assert end_ms(which, local) - end_ms(which - DAY, local) == hours * HOUR_MS


@settings(max_examples=60, deadline=None, derandomize=True)
@given(zone=st.sampled_from(ZONES), at_ms=st.integers(0, ms("2037-12-31T00:00:00+00:00")))
@example("Pacific/Apia", ms("2011-12-30T10:00:00+00:00"))
@example("America/St_Johns", ms("2010-11-07T02:45:00+00:00"))
def test_every_moment_belongs_to_one_day(zone: str, at_ms: int):
    local = ZoneInfo(zone)
    day = day_of(at_ms, local)
    assert end_ms(day - DAY, local) <= at_ms < end_ms(day, local)
    assert abs(day - datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(local).date()) <= DAY


@pytest.mark.parametrize("zone", ZONES)
def test_days_follow_each_other_without_gap_or_overlap(zone: str):
    local = ZoneInfo(zone)
    ends = [end_ms(date(2006, 1, 1) + timedelta(n), local) for n in range(2 * 366)]
    assert all(before <= after for before, after in pairwise(ends))
    assert sum(after - before for before, after in pairwise(ends)) == ends[-1] - ends[0]


def test_a_moment_on_the_border_belongs_to_the_next_day():
    border = ms("2026-02-01T00:00:00+00:00")
    assert day_of(border - 1, UTC) == date(2026, 1, 31)
    assert day_of(border, UTC) == date(2026, 2, 1)
