"""Datetimes and times in JSON that keep their ``ZoneInfo``, in the notation of RFC 9557."""

from collections.abc import Callable
from datetime import datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

ZONED: Final = frozenset({"datetime", "time"})
"""The types of pydantic's schemas whose values may have a zone."""


def with_zone(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a datetime or time, changed so that a ``ZoneInfo`` survives.

    Pydantic writes only the offset. That gives the instant, but not the same local time on another day.
    """
    if "serialization" in schema:  # the user's own serializer
        return schema
    return {
        "type": "function-wrap",
        "function": _READS,
        "schema": schema,
        "serialization": {"type": "function-wrap", "function": _write, "schema": schema},
    }


def choices(schemas: list[Any]) -> list[Any]:
    """Return the choices of a union, and in addition those that keep a zone.

    Pydantic's own choices stay, because it distinguishes a date from a datetime by them.
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
            "its ZoneInfo has no key, so it cannot be loaded again: pass it in a zone with a key, or in UTC"
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
        raise ValueError("its time zone is unknown here: install the package tzdata") from None


def _in_zone(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the same local time in the zone, also in an hour that occurs twice or never.

    If the zone's rules have changed since, it keeps the instant, and the local time differs.
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
"""The precision of a written offset: local mean times, before time zones, had seconds."""
