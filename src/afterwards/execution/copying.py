"""Copy data deeply. What is more than data, such as a connection or a lock, is not copied."""

import asyncio
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from pathlib import PurePath
from re import Pattern
from types import MemberDescriptorType, SimpleNamespace
from typing import Any
from uuid import UUID

from anyio.abc import AsyncResource
from pydantic import BaseModel
from pydantic_core import MultiHostUrl, Url


class Shared(Exception):
    """Raised for a value that is more than data, such as a connection: it is not copied."""


Copied = dict[int, Any]
"""The copies made so far, by the ids of their originals: for cycles."""

Way = Callable[[Any, Copied, bool], Any]
"""A way to copy the objects of a class."""


def copy(value: Any, copied: Copied, data_only: bool = False) -> Any:
    """Return a copy of data, and an immutable value itself. What is more than data is returned itself, too.

    With ``data_only`` raise Shared for anything that is more than data.
    """
    kind: Any = type(value)
    if kind in IMMUTABLE:
        return value
    if id(value) in copied:
        return copied[id(value)]
    if kind in CONTAINERS:
        return _container(value, copied, data_only)
    return _way(kind)(value, copied, data_only)


def _container(value: Any, copied: Copied, data_only: bool) -> Any:
    kind = type(value)
    if kind is bytearray:
        return bytearray(value)
    if kind is tuple or kind is frozenset:
        items = [copy(one, copied, data_only) for one in value]
        changed = any(new is not old for new, old in zip(items, value, strict=True))
        return kind(items) if changed else value
    made = copied[id(value)] = kind()
    items = [copy(one, copied, data_only) for one in value]
    if kind is dict:
        items = list(zip(items, [copy(one, copied, data_only) for one in value.values()], strict=True))
    made.extend(items) if kind is list else made.update(items)
    return made


@lru_cache(maxsize=512)
def _way(kind: type) -> Way:
    """Return the way to copy objects of a class that is no built-in container."""
    if issubclass(kind, UNCHANGING):
        return _itself
    if issubclass(kind, MORE_THAN_DATA):
        return _shared
    for base in REBUILT:
        if issubclass(kind, base) and _reduction(kind) == _reduction(base):
            return partial(_rebuilt, base)
    if hasattr(kind, "__copy__"):
        return _by_its_class
    return _instance if _is_plain(kind) else _shared


def _itself(value: Any, copied: Copied, data_only: bool) -> Any:
    return value


def _shared(value: Any, copied: Copied, data_only: bool) -> Any:
    if data_only:
        raise Shared
    return value


def _by_its_class(value: Any, copied: Copied, data_only: bool) -> Any:
    """Return a copy as the class makes it: only the class knows the value's contents."""
    made = copied[id(value)] = type(value).__copy__(value)
    return made


def _rebuilt(base: Any, value: Any, copied: Copied, data_only: bool) -> Any:
    """Return a deep copy of a container or a model, made from its reduction. Its attributes must be data.

    It is filled by its base: a subclass may permit no changes, as OpenTelemetry's context.
    """
    make, args, state, items, pairs = (*value.__reduce_ex__(4), None, None, None)[:5]
    before = len(copied)
    copied.setdefault(KEPT, []).append((args, state))
    try:
        if items is None and pairs is None:  # then the contents are in the arguments, or the attributes
            args = copy(before_args := args, copied, data_only)
            if state is None and args is before_args and isinstance(value, tuple):
                return value
        made = copied[id(value)] = make(*args)
        if state is not None:
            _set_state(made, copy(state, copied, True))
    except Shared:
        _forget(copied, before)
        if hasattr(type(value), "__copy__"):
            return _by_its_class(value, copied, data_only)
        return _shared(value, copied, data_only)
    for one in items or ():
        base.append(made, copy(one, copied, data_only))
    for key, one in pairs or ():
        base.__setitem__(made, copy(key, copied, data_only), copy(one, copied, data_only))
    return made


def _set_state(made: Any, state: Any) -> None:
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    vars(made).update(attributes or {})
    for name, one in (slots or {}).items():
        object.__setattr__(made, name, one)


def _instance(value: Any, copied: Copied, data_only: bool) -> Any:
    """Return a copy of an object whose attributes are all data. One with a connection or a lock is returned itself."""
    before = len(copied)
    kind: Any = type(value)
    made = kind.__new__(kind)
    copied[id(value)] = made
    try:
        for slot in _slots(kind):
            try:
                one = slot.__get__(value)
            except AttributeError:  # it has no value
                continue
            slot.__set__(made, copy(one, copied, True))
        if kind.__dictoffset__:
            vars(made).update({name: copy(one, copied, True) for name, one in vars(value).items()})
    except Shared:
        _forget(copied, before)
        return _shared(value, copied, data_only)
    return made


def _forget(copied: Copied, before: int) -> None:
    """Forget the copies made since there were ``before``."""
    while len(copied) > before:
        copied.popitem()


def _is_plain(kind: type) -> bool:
    """Return whether objects of a class consist of their attributes and nothing else."""
    if kind is SimpleNamespace:
        return True
    like = _LIKE[bool(kind.__dictoffset__), bool(kind.__weakrefoffset__)]
    return (
        kind.__flags__ & HEAP_TYPE != 0
        and not hasattr(kind, "__del__")  # it would end what the original holds
        and kind.__basicsize__ == like.__basicsize__ + len(_slots(kind)) * POINTER
        and _making(kind) == _making(like)
    )


@lru_cache(maxsize=512)
def _slots(kind: type) -> list[MemberDescriptorType]:
    classes = [base for base in kind.__mro__ if base.__flags__ & HEAP_TYPE]
    return [one for base in classes for one in vars(base).values() if isinstance(one, MemberDescriptorType)]


def _making(kind: Any) -> tuple[Any, ...]:
    """Return how objects of a class are created, reduced and read."""
    return kind.__new__, kind.__reduce__, kind.__reduce_ex__, kind.__getattribute__


def _reduction(kind: Any) -> tuple[Any, ...]:
    """Return how objects of a class are reduced, which a subclass may define anew, and copied."""
    return kind.__reduce__, kind.__reduce_ex__, kind.__getstate__, getattr(kind, "__copy__", None)


class _Bare:
    __slots__ = ()


class _WithDict:
    __slots__ = ("__dict__",)


class _WithWeakref:
    __slots__ = ("__weakref__",)


class _Instance:
    """A plain class, for comparison, as are those above."""


_LIKE: dict[tuple[bool, bool], type] = {
    (bool(kind.__dictoffset__), bool(kind.__weakrefoffset__)): kind
    for kind in (_Bare, _WithDict, _WithWeakref, _Instance)
}

HEAP_TYPE = 1 << 9
"""The type flag of classes made by a ``class`` statement."""

POINTER = tuple.__itemsize__
"""The size of a slot."""

KEPT = -1
"""The key, no object's id, of what must be kept while copies are made, so that its ids are given to no other object."""

IMMUTABLE = frozenset(
    {type(None), bool, int, float, complex, str, bytes, type, range, datetime, date, timedelta, Decimal, UUID}
)
"""The usual classes of immutable values, found without a look at their bases."""

UNCHANGING = (
    *(int, float, complex, str, bytes, type, date, time, timedelta, tzinfo, Decimal),
    *(Enum, UUID, PurePath, Pattern, Url, MultiHostUrl),
)
"""Classes of immutable values, with their subclasses."""

CONTAINERS = frozenset({list, set, dict, bytearray, tuple, frozenset})

REBUILT = (
    *(dict, list, set, frozenset, tuple, deque, OrderedDict, Counter, defaultdict, UserDict, UserList, ChainMap),
    BaseModel,
)
"""Containers whose subclasses, too, are copied with their contents. Their own ``__copy__`` would share those."""

MORE_THAN_DATA = (
    *(asyncio.Lock, asyncio.Event, asyncio.Condition, asyncio.Semaphore, asyncio.Queue, asyncio.TaskGroup),
    AsyncResource,
)
"""Classes that tasks share in order to meet, although their attributes look like data."""
