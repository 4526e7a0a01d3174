"""The context in which attempts begin: a copy of the worker's, without changes by other attempts."""

import contextvars
import copy
from datetime import date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from afterwards import telemetry


class FreshContexts:
    """Makes copies of the context in which it was created. Mutable values are copied for each attempt."""

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self._mutable: list[tuple[contextvars.ContextVar[Any], Any]] = []
        for variable, value in self._context.items():
            if not variable.name.startswith(OURS) and (kept := _copied(value)) is not value:
                self._mutable.append((variable, kept))

    def fresh(self) -> contextvars.Context:
        """Return a context for one attempt."""
        context = self._context.copy()
        for variable, kept in self._mutable:
            context.run(variable.set, _copied(kept))
        return context


OURS = "afterwards_"
"""Prefix of the names of our own variables: their values are meant to be shared."""


class _Shared(Exception):
    """Raised for a value that is more than data, such as a connection: all attempts share it."""


def _copied(value: Any) -> Any:
    """Return a deep copy of data; return an immutable value, or one that is more than data, itself."""
    try:
        return _copy(value, {}, data_only=False)
    except BaseException as error:  # the user's code
        telemetry.not_copied(error)
        return value


def _copy(value: Any, copied: dict[int, Any], *, data_only: bool) -> Any:
    """Return a copy; ``copied`` has earlier copies, for cycles. With ``data_only``, raise _Shared for anything else."""
    kind = type(value)
    if kind in IMMUTABLE:
        return value
    if id(value) in copied:
        return copied[id(value)]
    if kind in CONTAINERS:
        return _container(value, copied, data_only=data_only)
    if hasattr(kind, "__copy__"):  # the class defines how it is copied
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
    """Return whether objects of a class consist of their attributes and nothing else."""
    return kind is SimpleNamespace or (kind.__flags__ & HEAP_TYPE != 0 and _ways(kind) == _ways(_Instance))


def _ways(kind: Any) -> tuple[Any, ...]:
    """Return the size of a class's objects, and how they are created and reduced."""
    return kind.__basicsize__, kind.__new__, kind.__reduce__, kind.__reduce_ex__, kind.__getattribute__


def _instance(value: Any, copied: dict[int, Any], *, data_only: bool) -> Any:
    """Return a copy of an object whose attributes are all data. One with a connection or a lock is returned itself."""
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
    """A plain class, for comparison."""


HEAP_TYPE = 1 << 9
"""The type flag of classes made by a ``class`` statement."""

IMMUTABLE = frozenset(
    {type(None), bool, int, float, complex, str, bytes, type, range, datetime, date, timedelta, Decimal}
)

CONTAINERS = frozenset({list, set, dict, bytearray, tuple, frozenset})
