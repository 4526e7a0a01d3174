"""A clock that was put back: by more than three hours it was wrong before, and the new time holds."""

from datetime import datetime, timedelta

CORRECTION = timedelta(hours=3)
"""A larger step back is a correction; a smaller one is waited out, as Debian's cron does."""


def put_back(past: datetime, now: datetime) -> bool:
    """Return whether an instant of the past is one of a clock that was corrected since."""
    return past - now > CORRECTION


def corrected(past: datetime, now: datetime) -> datetime:
    """An instant of the past, as the clock has it now."""
    return now if put_back(past, now) else past
