"""Recognise values that a client may have sent, and that JSON or a store cannot hold."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from math import isfinite
from pathlib import PurePath
from typing import Any, Final

from afterwards.core.serialization.compare import parts
from afterwards.core.text import is_unicode

DEEP: Final = 100
"""Levels of nesting above which a value may be too deep for the codec. Python's own JSON reads ten times as many."""


def may_be_sent(value: Any) -> bool:
    """Return True if a value of a usual type has contents that FastAPI accepts, and JSON cannot hold.

    These are numbers such as NaN, text with a lone surrogate, and very deep nesting. An object that contains itself was
    made by code.
    """
    seen: set[int] = set()
    level = [value]
    for _ in range(DEEP):
        if not all(map(_is_usual, level)):
            return True
        inside = {id(part): part for one in level for part in _within(one)}
        level = [part for key, part in inside.items() if key not in seen]
        seen |= inside.keys()
        if not level:
            return False
    return True


def _within(value: Any) -> Iterable[Any]:
    return (*value, *value.values()) if isinstance(value, Mapping) else parts(value)


def _is_usual(value: Any) -> bool:
    match value:
        case str() | PurePath():
            return is_unicode(str(value))
        case float():
            return isfinite(value)
        case complex():
            return isfinite(value.real) and isfinite(value.imag)
        case Decimal():
            return value.is_finite()
    return True
