"""The context in which attempts begin: that of the worker's start, with nothing in it that another attempt changed."""

import contextvars
import copy
from datetime import date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from afterwards import telemetry


class FreshContexts:
    """Copies of the context in which this was made. What can be changed in it is copied, for each attempt anew."""

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self._mutable: list[tuple[contextvars.ContextVar[Any], Any]] = []
        for variable, value in self._context.items():
            if not variable.name.startswith(OURS) and (kept := _copied(value)) is not value:
                self._mutable.append((variable, kept))

    def fresh(self) -> contextvars.Context:
        """A context for one attempt."""
        context = self._context.copy()
        for variable, kept in self._mutable:
            context.run(variable.set, _copied(kept))
        return context


OURS = "afterwards_"
"""How the names of our own variables begin: what they hold is meant to be shared."""


class _Shared(Exception):
    """A value that is more than data, as a connection: it stays one and the same for all attempts."""


def _copied(value: Any) -> Any:
    """A copy of what is data, in containers too; the value itself where it cannot be changed, or is more than data."""
    try:
        return _copy(value, {}, data_only=False)
    except BaseException as error:  # the user's code
        telemetry.not_copied(error)
        return value


def _copy(value: Any, copied: dict[int, Any], *, data_only: bool) -> Any:
    """A copy; ``copied`` has what was copied before, for circles. With ``data_only``, raises _Shared instead."""
    kind = type(value)
    if kind in IMMUTABLE:
        return value
    if id(value) in copied:
        return copied[id(value)]
    if kind in CONTAINERS:
        return _container(value, copied, data_only=data_only)
    if hasattr(kind, "__copy__"):  # it says itself how it is copied
        made = copied[id(value)] = copy.copy(value)
        return made
    if _plain(kind):
        return _instance(value, copied, data_only=data_only)
    if data_only:
        raise _Shared
    return value


def _container(value: Any, copied: dict[int, Any], *, data_only: bool) -> Any:
    kind = type(value)
    if kind is bytearray:
        return bytearray(value)
    if kind is tuple or kind is frozenset:
        items = [_copy(one, copied, data_only=data_only) for one in value]
        changed = any(new is not old for new, old in zip(items, value, strict=True))
        return kind(items) if changed else value
    made = copied[id(value)] = kind()
    items = [_copy(one, copied, data_only=data_only) for one in value]
    if kind is dict:
        items = list(zip(items, [_copy(one, copied, data_only=data_only) for one in value.values()], strict=True))
    made.extend(items) if kind is list else made.update(items)
    return made


def _plain(kind: type) -> bool:
    """Whether objects of a class are made of their attributes, and of nothing else."""
    return kind is SimpleNamespace or (kind.__flags__ & HEAP_TYPE != 0 and _ways(kind) == _ways(_Instance))


def _ways(kind: Any) -> tuple[Any, ...]:
    """The size of a class's objects, how one is made, and how it is taken to pieces."""
    return kind.__basicsize__, kind.__new__, kind.__reduce__, kind.__reduce_ex__, kind.__getattribute__


def _instance(value: Any, copied: dict[int, Any], *, data_only: bool) -> Any:
    """A copy of an object all of whose attributes are data; one with a connection or a lock is shared as a whole."""
    before = copied.copy()
    kind: Any = type(value)
    made = kind.__new__(kind)
    copied[id(value)] = made
    try:
        attributes = {name: _copy(one, copied, data_only=True) for name, one in vars(value).items()}
    except _Shared:
        copied.clear()
        copied.update(before)
        if data_only:
            raise
        return value
    vars(made).update(attributes)
    return made


class _Instance:
    """An object of a class without anything particular."""


HEAP_TYPE = 1 << 9
"""The flag of classes that were made by a ``class`` statement."""

IMMUTABLE = frozenset(
    {type(None), bool, int, float, complex, str, bytes, type, range, datetime, date, timedelta, Decimal}
)

CONTAINERS = frozenset({list, set, dict, bytearray, tuple, frozenset})
