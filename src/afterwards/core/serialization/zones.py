"""Instants and times of day with the time zone that they were given in, as RFC 9557 writes it."""

from collections.abc import Callable
from datetime import datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

ZONED: Final = frozenset({"datetime", "time"})
"""The kinds of schema whose values may have a zone."""


def with_zone(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a datetime or a time, changed so that a ``ZoneInfo`` comes back as it was.

    Its offset alone, which is all that pydantic writes, would do for the instant, but not for the same hour tomorrow.
    """
    if "serialization" in schema:  # the user's own form
        return schema
    return {
        "type": "function-wrap",
        "function": _READS,
        "schema": schema,
        "serialization": {"type": "function-wrap", "function": _write, "schema": schema},
    }


def choices(schemas: list[Any]) -> list[Any]:
    """The choices of a union, with those among them that have a zone.

    Each stands there as pydantic has it, too: its choice among a date and an instant rests on that.
    """
    zoned = [schema for schema in schemas if isinstance(schema, dict) and schema.get("function") is _READS]
    bare = [
        schema if schema not in zoned else {**schema["schema"], "serialization": schema["serialization"]}
        for schema in schemas
    ]
    return bare + zoned


def _write(value: Any, write: Callable[[Any], Any]) -> Any:
    written = write(value)
    zone = getattr(value, "tzinfo", None)
    if not isinstance(zone, ZoneInfo):
        return written
    if zone.key is None:
        raise ValueError(
            "its ZoneInfo has no key, and cannot be found again: pass it in a zone that has one, or in UTC"
        )
    return f"{written}[{zone.key}]"


def _read(value: Any, read: Callable[[Any], Any]) -> Any:
    if not isinstance(value, str) or not value.endswith("]"):
        return read(value)
    text, _, key = value[:-1].partition("[")
    zone = _found(key)
    moment = read(text)
    return moment.replace(tzinfo=zone) if isinstance(moment, time) else _in_zone(moment, zone)


_READS: Final = {"type": "no-info", "function": _read}


def _found(key: str) -> ZoneInfo:
    try:
        return ZoneInfo(key)
    except ZoneInfoNotFoundError:
        raise ValueError("its time zone is not known here: install the package tzdata") from None


def _in_zone(moment: datetime, zone: ZoneInfo) -> datetime:
    """The same on the zone's clock, also in an hour that it shows twice or never.

    Where the zone's rules have changed since, the instant holds and the clock shows another time.
    """
    written = moment.utcoffset()
    for fold in (0, 1):
        local = moment.replace(tzinfo=zone, fold=fold)
        if written is None or abs(written - (local.utcoffset() or timedelta())) < _PRECISION:
            return local
    try:
        return moment.astimezone(zone)
    except OverflowError:
        raise ValueError("its time zone has no such year") from None


_PRECISION: Final = timedelta(minutes=1)
"""Of an offset as it is written: local time had seconds before there were zones."""
