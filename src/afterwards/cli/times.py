"""Times as people write and read them."""

import re
from datetime import UTC, datetime, timedelta

from afterwards.cli.errors import UsageError
from afterwards.core.spans import UNITS

_UNITS = UNITS | {"min": UNITS["m"], "w": 7 * UNITS["d"]}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
_FORMS = "give a span until now, as 90s, 30m, 1h or 7d, or a time, as 2026-11-28T10:00"


def now() -> datetime:
    """Return the time by the clock of this host."""
    return datetime.now(UTC)


def instant(text: str, option: str = "--since") -> datetime:
    """Return the instant that a text names, in UTC. A time without a zone is local. Raises UsageError."""
    try:
        if found := _SPAN.fullmatch(text.strip()):
            return now() - float(found[1]) * _UNITS[found[2]]
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"{option} {text!r}: {_FORMS}") from error


def span(text: str, option: str) -> timedelta:
    """Return the span that a text names, in seconds if it has no unit. Raises UsageError."""
    found = _SPAN.fullmatch(text.strip() + ("s" if text.strip()[-1:].isdigit() else ""))
    try:
        if found:
            return float(found[1]) * _UNITS[found[2]]
    except OverflowError:
        pass
    raise UsageError(f"{option} {text!r}: give a span, as 90s, 30m, 1h or 7d")


def ago(at: datetime | None, since: datetime) -> str:
    """Return how long ago an instant was, or how soon it will be.

    >>> ago(datetime(2026, 1, 1, 12, 0, tzinfo=UTC), datetime(2026, 1, 1, 12, 3, 20, tzinfo=UTC))
    '3 min ago'
    """
    if at is None:
        return ""
    passed = since - at
    if abs(passed) < timedelta(seconds=1):
        return "just now"
    return f"{lasting(passed)} ago" if passed > timedelta() else f"in {lasting(-passed)}"


def lasting(span: timedelta) -> str:
    """Return a span in the largest unit that fits, rounded down.

    >>> lasting(timedelta(hours=1, minutes=59))
    '1 h'
    """
    seconds = span.total_seconds()
    if seconds < 1:
        return f"{seconds:.2g} s"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def iso(at: datetime | None) -> str | None:
    """Return an instant as ISO 8601 in UTC, for JSON."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
