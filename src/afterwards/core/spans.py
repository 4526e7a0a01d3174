"""Validation of spans of time: seconds or timedeltas."""

from datetime import timedelta

from afterwards.core.errors import InvalidOption, RefusedValue
from afterwards.core.text import shown

LONGEST_SPAN = timedelta(days=36500)

UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
"""The units of spans that are written as text."""


def as_span(value: float | timedelta, name: str = "the span") -> timedelta:
    """Return a span given as seconds or as a timedelta. ``name`` is the option's. Raises InvalidOption."""
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise InvalidOption(f"{name}={shown(value)}: give seconds, or a timedelta")
    if value != value:
        raise RefusedValue(name, f"={value!r}: give seconds, or a timedelta")
    span = value if isinstance(value, timedelta) else _seconds(value)
    if not timedelta() <= span <= LONGEST_SPAN:
        fault = "negative" if span < timedelta() else "too long"
        raise RefusedValue(
            name, f"={shown(value)} is {fault}: a span of time is zero to {LONGEST_SPAN.days} days, in seconds"
        )
    return span


def _seconds(value: float) -> timedelta:
    try:
        return timedelta(seconds=value)
    except OverflowError:
        return timedelta.max if value > 0 else timedelta.min
