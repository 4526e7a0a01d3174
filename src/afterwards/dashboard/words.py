"""Spans, instants, numbers and schedules in plain English."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

from afterwards.core.errors import InvalidOption
from afterwards.core.schedule import Every, of_text

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def span(value: timedelta) -> str:
    """Return a span in its two largest units. A negative one, which differing clocks may give, is zero.

    >>> span(timedelta(milliseconds=85)), span(timedelta(seconds=1.25)), span(timedelta(days=2, hours=3, minutes=4))
    ('85 ms', '1.2 s', '2 d 3 h')
    """
    seconds = max(0.0, value.total_seconds())
    if seconds < 0.9995:
        return f"{round(seconds * 1000)} ms" if seconds else "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    said: list[str] = []
    left = round(seconds)
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or said:
            said.append(f"{count} {unit}" if count else "")
        if len(said) == 2:
            break
    return " ".join(filter(None, said))


def ago(at: datetime, now: datetime) -> str:
    """Return how far an instant is from now, on either side; of the past, the largest unit is enough.

    >>> now = datetime(2026, 1, 1, tzinfo=UTC)
    >>> ago(now - timedelta(minutes=5, seconds=7), now), ago(now + timedelta(hours=2, minutes=3), now), ago(now, now)
    ('5 min ago', 'in 2 h 3 min', 'now')
    """
    seconds = round((at - now).total_seconds())
    if seconds == 0:
        return "now"
    if seconds > 0:
        return f"in {span(timedelta(seconds=seconds))}"
    unit, size = next((unit, size) for unit, size in _UNITS if -seconds >= size)
    return f"{-seconds // size} {unit} ago"


def instant(at: datetime) -> str:
    """Return an instant in UTC, to the second.

    >>> instant(datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC))
    '2026-01-02 03:04:05 UTC'
    """
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def number(value: float) -> str:
    """Return a number with separators for thousands.

    >>> number(1234567), number(0.5), number(12.0)
    ('1,234,567', '0.5', '12')
    """
    return f"{value:,.0f}" if value == int(value) else f"{value:,.6g}"


def at_most(value: int, most: int) -> str:
    """Return a count that ended at a limit.

    >>> at_most(7, 1000), at_most(1000, 1000)
    ('7', '1,000+')
    """
    return f"{number(value)}+" if value >= most else number(value)


def tasks(count: int) -> str:
    """Return a number of tasks.

    >>> tasks(0), tasks(1), tasks(2000)
    ('0 tasks', '1 task', '2,000 tasks')
    """
    return f"{number(count)} task" if count == 1 else f"{number(count)} tasks"


def schedule(expression: str, tz: str | None) -> str:
    """Return a schedule as a sentence; ``tz`` is the zone of a cron expression, None for a span.

    >>> schedule("every 0:01:30", None), schedule("every 7 days, 0:00:00", None)
    ('Every 1 min 30 s', 'Every 7 d')
    >>> schedule("0 3 * * *", "Europe/Berlin")
    'At 03:00 every day (Europe/Berlin)'
    """
    if tz is None:
        with suppress(InvalidOption):  # a later version wrote it
            found = of_text(expression)
            if isinstance(found, Every):
                return f"Every {span(found.span)}"
    said = _explained(expression)
    return f"{said} ({tz})" if tz and said != expression else said


def _explained(expression: str) -> str:
    """Return what cronsim says about an expression; the expression itself where it is missing or refuses it."""
    # Imported here because cronsim is an optional dependency; it also decides when schedules fire, so it cannot differ.
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        return expression
    try:
        return CronSim(expression, datetime(2000, 1, 1)).explain()
    except CronSimError:
        return expression
