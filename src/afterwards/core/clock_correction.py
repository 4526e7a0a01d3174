"""Clock corrections: when the clock is set back by more than three hours, earlier readings were wrong."""

from datetime import datetime, timedelta

CORRECTION = timedelta(hours=3)
"""A step back of more than this is a correction. A smaller step is waited out, as in Debian's cron."""


def put_back(past: datetime, now: datetime) -> bool:
    """Return True if a stored instant was read before the clock was corrected."""
    return past - now > CORRECTION


def corrected(past: datetime, now: datetime) -> datetime:
    """Return a stored instant, or ``now`` if it was read before the clock was corrected."""
    return now if put_back(past, now) else past
