"""The types of a row's columns. SQLite keeps any value in any column, and other versions have other rows."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

LATEST: Final = 253_402_214_400_000_000
"""The beginning of the calendar's last day, in microseconds: later instants have no local time in some zones."""

TEXT, WHOLE, BYTES, NOTHING = str, int, bytes, type(None)

SHAPE: Final[dict[str, tuple[type, ...]]] = {
    "id": (BYTES,),
    "name": (TEXT,),
    "arguments": (TEXT,),
    "created_at": (WHOLE,),
    "state": (TEXT,),
    "queue": (TEXT,),
    "priority": (WHOLE,),
    "overrides": (TEXT, NOTHING),
    "retention": (WHOLE, NOTHING),
    "origin": (TEXT, NOTHING),
    "after": (BYTES, NOTHING),
    "plain": (WHOLE,),
    "attempt": (WHOLE,),
    "failed": (WHOLE,),
    "crashed": (WHOLE,),
    "suspect": (WHOLE,),
    "run_at": (WHOLE, NOTHING),
    "worker": (TEXT, NOTHING),
    "lease_until": (WHOLE, NOTHING),
    "started_at": (WHOLE, NOTHING),
    "finished_at": (WHOLE, NOTHING),
    "cancel_requested": (TEXT, NOTHING),
    "reason": (TEXT, NOTHING),
    "cause": (BYTES, NOTHING),
    "progress": (TEXT, NOTHING),
    "result": (TEXT, NOTHING),
    "expires_at": (WHOLE, NOTHING),
    "more": (TEXT, NOTHING),
    "losses": (WHOLE,),
    "aside_from": (TEXT, NOTHING),
    "set_aside": (TEXT, NOTHING),
    "failures_left_out": (WHOLE,),
    "limit_key": (TEXT,),
    "secrets": (TEXT, NOTHING),
    "seq": (WHOLE,),
}
"""The columns of a task that are read, and their types."""

_WORDS: Final = {TEXT: "text", WHOLE: "a whole number", BYTES: "bytes", NOTHING: "nothing", float: "a fraction"}


class UnreadableRow(ValueError):
    """A row that this version cannot read. The text says why, and shows no values."""


def check(row: Sequence[Any]) -> None:
    """Raise UnreadableRow for a value of a type that its column does not have."""
    if fault := _fault(tuple(map(type, row))):
        raise UnreadableRow(fault)


def check_texts(row: Sequence[Any]) -> None:
    """Raise UnreadableRow for text that is not UTF-8."""
    for column, value in zip(SHAPE, row, strict=True):
        if isinstance(value, str) and not is_text(value):
            raise UnreadableRow(f"its column {column} holds bytes that are not UTF-8")


def is_text(value: object) -> bool:
    """Return True for text that SQLite accepts as a parameter: not for text that was not UTF-8 when it was read."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= one <= "\udfff" for one in value))


def decoded(raw: bytes) -> str:
    """Return stored text. Bytes that are not UTF-8 become lone surrogates, which ``is_text`` finds."""
    return raw.decode(errors="surrogateescape")


@lru_cache(1024)  # most rows have one of few combinations of types
def _fault(types: tuple[type, ...]) -> str | None:
    for (column, allowed), found in zip(SHAPE.items(), types, strict=True):
        if found not in allowed:
            expected = " or ".join(_WORDS[one] for one in allowed)
            return f"its column {column} holds {_WORDS[found]} instead of {expected}"
    return None
