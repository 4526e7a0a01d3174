"""Compare a value with its copy that was loaded from JSON, and walk through the parts of a value."""

import builtins
import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, ValuesView
from dataclasses import is_dataclass
from datetime import datetime, timedelta
from itertools import islice
from math import isnan
from types import NoneType
from typing import Any, Final

from pydantic import BaseModel

SCALARS: Final = frozenset({str, int, float, bool, NoneType})


def same(given: Any, loaded: Any) -> bool:
    """Return True if both are equal. NaN equals NaN. Objects without ``__eq__`` are compared by their attributes."""
    if equal(given, loaded):
        return True
    if type(given) is not type(loaded):
        return False
    match given:
        case float():
            return isnan(given) and isnan(loaded)
        case datetime():  # in a repeated or skipped hour, times of two zones never compare equal
            return _clock(given) == _clock(loaded)
        case list() | tuple():
            return len(given) == len(loaded) and all(map(same, given, loaded))
        case set() | frozenset():
            return len(given) == len(loaded) and all(any(same(a, b) for b in loaded - given) for a in given - loaded)
        case dict():
            return given.keys() == loaded.keys() and all(same(value, loaded[key]) for key, value in given.items())
    state = attributes(given)
    return state is not None and same(state, attributes(loaded))


def _clock(instant: datetime) -> tuple[datetime, timedelta | None]:
    return instant.replace(tzinfo=None), instant.utcoffset()


def equal(given: Any, loaded: Any) -> bool:
    try:
        return bool(given == loaded)
    except (TypeError, ValueError):  # arrays compare to arrays
        return False


def attributes(value: Any) -> dict[str, Any] | None:
    """Return the attributes that define a model, a dataclass or a plain object; None for other values."""
    if isinstance(value, BaseModel):  # without private attributes, which are not data
        declared = type(value).model_fields
        return {name: vars(value)[name] for name in vars(value) if name in declared} | (value.model_extra or {})
    if is_dataclass(value):  # one made without its constructor lacks some
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    own_equality: Any = type(value).__eq__
    return vars(value) if own_equality is object.__eq__ and hasattr(value, "__dict__") else None


def type_name(value: Any) -> str:
    """Return the name of a value's type, with its module if it is also a builtin's name (NumPy's bool)."""
    kind = type(value)
    alike = kind.__module__ != "builtins" and hasattr(builtins, kind.__name__)
    return f"{kind.__module__}.{kind.__name__}" if alike else kind.__name__


def is_stream(value: Any) -> bool:
    return isinstance(value, Iterator)


def any_stream(values: Iterable[Any]) -> bool:
    for value in values:  # noqa: SIM110  # `any` takes three times as long, in every call
        if type(value) not in SCALARS and is_stream(value):
            return True
    return False


def walk(value: Any) -> Iterator[Any]:
    """Yield a value and its parts, breadth first. It stops after a thousand, because a value may contain itself."""
    waiting = deque([value])
    for _ in range(1_000):
        if not waiting:
            return
        yield waiting[0]
        waiting.extend(islice(parts(waiting.popleft()), 1_000))


def parts(value: Any) -> Iterable[Any]:
    """Return the parts of a container, a model or a dataclass; of a dict only the values."""
    match value:
        case list() | tuple() | set() | frozenset() | deque() | ValuesView():
            return value
        case dict():
            return value.values()
    return (attributes(value) or {}).values() if isinstance(value, BaseModel) or is_dataclass(value) else ()
