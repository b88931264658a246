"""Local days in time zones. Most have 24 hours; where clocks are put forward or back they are shorter, longer, or do not exist."""

from datetime import UTC, date, datetime, time, timedelta, tzinfo

DAY = timedelta(days=1)


def end_ms(day: date, zone: tzinfo) -> int:
    """When a day is over, in milliseconds since 1970: the first moment of the next one.

    Where midnight does not exist, that is the moment at which the clock jumps over it; where it comes twice, the second time. Days
    follow each other without gap or overlap, therefore, and one that a zone left out (Samoa's 30 December 2011) has no length."""
    midnight = datetime.combine(day + DAY, time(), zone)
    return max(int(midnight.replace(fold=fold).timestamp() * 1000) for fold in (0, 1))


def day_of(at_ms: int, zone: tzinfo) -> date:
    """The day that a moment belongs to: it is over after the moment, and the day before is not."""
    day = datetime.fromtimestamp(at_ms // 1000, UTC).astimezone(zone).date() - DAY
    while end_ms(day, zone) <= at_ms:
        day += DAY
    return day
