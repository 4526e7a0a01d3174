"""Await a function's result, if it is awaitable: its work is not done before."""

import asyncio
import inspect
from collections import ChainMap, deque
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from concurrent.futures import Future
from dataclasses import is_dataclass
from itertools import chain, count, islice, repeat, starmap
from types import AsyncGeneratorType, CoroutineType, GeneratorType, MappingProxyType, SimpleNamespace
from typing import Any
from weakref import ProxyTypes

from pydantic import BaseModel

from afterwards.core.errors import TooLarge
from afterwards.core.serialization.compare import SCALARS, attributes

MOST = 10
"""Maximum depth of nested awaitables that a call may return."""

MOST_PARTS = 1_000_000
"""Maximum number of containers in a result that cannot be stored. Searching so many takes a second or two."""

MOST_GLANCED_AT = 10_000
"""Maximum number of containers that are searched in the result of a plain function, which is discarded."""


async def awaited(result: Any) -> Any:
    """Return the result of a function that may have returned a coroutine, a future, or another awaitable.

    Raises TypeError for work that would never be done: a generator, or awaitables in a list.
    """
    for _ in range(MOST):
        if done(result):
            return result
        if (left := left_undone(result)) is not None:
            _close_all(result)
            raise TypeError(f"it returned {left}")
        result = await (asyncio.wrap_future(result) if issubclass(type(result), Future) else result)
    raise TypeError(f"it returned an awaitable whose result is another awaitable, {MOST} times in a row")


def done(result: Any) -> bool:
    """Return whether there is nothing left to await or iterate. Checks the class: an object may raise on any access."""
    kind = type(result)
    return _unfinished(result) is None if kind in _CONTAINERS else not _is_work(kind)


def left_undone(result: Any) -> str | None:
    """Describe a returned value that would never be run or awaited, with the remedy; None for a single awaitable."""
    kind = type(result)
    if kind in _LAZY and not inspect.isawaitable(result):
        return f"{_LAZY[kind]}, whose body has not run: return a value instead"
    if kind in _CONTAINERS and (one := _unfinished(result)) is not None:
        return (
            f"a {kind.__name__} that contains a {type(one).__name__}, which is never awaited: "
            "return the result of `await asyncio.gather(...)`"
        )
    return None


def refuse_undone(result: Any, why_not_stored: BaseException) -> None:
    """Raise TypeError for a result that could not be stored, if some part of it, at any depth, is still to be done.

    Also raises TypeError for a result of more containers than can be searched. The search takes long for a large value.
    """
    if type(why_not_stored) is TooLarge:
        return  # it is equal to its copy from JSON, so nothing in it is work
    parts = _parts_within(result, at_most=MOST_PARTS + 1)
    if (left := _undone(result, parts)) is not None:
        raise TypeError(f"it returned {left}")
    if len(parts) > MOST_PARTS:
        name = type(result).__name__
        raise TypeError(f"it returned a {name} of too many parts to tell whether all work is done: return less")


def undone_within(result: Any) -> str | None:
    """Describe the first part of a value, at any depth, that is still to be done. Its coroutines are closed.

    Of a very large value only the beginning is searched, so this takes milliseconds.
    """
    return _undone(result, _parts_within(result, at_most=MOST_GLANCED_AT))


def _undone(result: Any, parts: Iterable[Any]) -> str | None:
    undone = [part for part in parts if _is_left(type(part)) and not _has_ended(part)]
    for part in undone:
        if type(part) is CoroutineType:
            part.close()
    if not undone:
        return None
    where = "" if undone[0] is result else f"a {type(result).__name__} that contains "
    kind = type(undone[0])
    never = "awaited: return the result of awaiting it" if _is_awaitable(kind) else "iterated: return a list instead"
    return f"{where}a {kind.__name__}, which is never {never}"


def _parts_within(result: Any, *, at_most: int) -> list[Any]:
    try:
        return list(islice(_walk(result), at_most))
    except BaseException:  # attributes of a user's object may raise anything
        return []


def _walk(result: Any) -> Iterator[Any]:
    """Yield a value and its parts, at any depth, that may be work or hold others; each object once."""
    seen: dict[int, Any] = {}  # with the objects, because the id of one that is gone is used again
    leaves: set[Any] = set(SCALARS)
    waiting: list[Any] = [(result,)]
    while waiting:
        for part in _parts_of(waiting.pop()):
            kind = type(part)
            if kind in leaves or id(part) in seen:
                continue
            holds = _holds_others(kind)
            if not (holds or _is_left(kind)):
                leaves.add(kind)
                continue
            seen[id(part)] = part
            if holds:
                waiting.append(part)
            yield part


def _holds_others(kind: type) -> bool:
    is_data = issubclass(kind, BaseModel) or is_dataclass(kind)
    in_database = hasattr(kind, "_sa_class_manager")  # its attributes may load others
    return issubclass(kind, _HOLDERS) or (is_data and not in_database)


def _parts_of(holder: Any) -> Iterable[Any]:
    match holder:
        case list() | tuple() | set() | frozenset() | deque():
            return holder
        case dict() | MappingProxyType():
            return chain(holder, holder.values())
        case ChainMap():
            return holder.maps
        case SimpleNamespace():
            return vars(holder).values()
    data = attributes(holder)
    return holder if data is None else data.values()


def _is_left(kind: type) -> bool:
    """Return whether an object of the class is work, or an iterator of any class, which cannot be stored."""
    return _is_work(kind) or _is_iterator(kind)


def _is_iterator(kind: type) -> bool:
    """Return whether objects of the class may have work that is done when they are iterated; not files and cursors."""
    iterates = hasattr(kind, "__next__") or hasattr(kind, "__anext__")
    is_open = hasattr(kind, "close") or hasattr(kind, "aclose")  # a cursor has executed its statement
    return iterates and not is_open and kind not in _WORKLESS


def _is_work(kind: type) -> bool:
    """Return whether an object of the class is still to be awaited or iterated."""
    return kind in _LAZY or _is_awaitable(kind)


def _is_awaitable(kind: type) -> bool:
    return issubclass(kind, Future) or getattr(kind, "__await__", None) is not None


def _unfinished(container: Any) -> Any:
    """Return the first object in a container that is still to be awaited or iterated, or None."""
    values = _values(container)
    if not any(map(_is_work, set(map(type, values)))):  # by far the fastest way through a long list
        return None
    return next((one for one in values if _is_work(type(one)) and not _has_ended(one)), None)


def _has_ended(one: Any) -> bool:
    return issubclass(type(one), (Future, asyncio.Future)) and one.done()


def _values(container: Any) -> Iterable[Any]:
    return container.values() if type(container) is dict else container


def _close_all(result: Any) -> None:
    """Close the coroutines in a container, so that Python does not warn that they were never awaited."""
    if type(result) in _CONTAINERS:
        for one in _values(result):
            if type(one) is CoroutineType:
                one.close()


_LAZY: dict[type, str] = {
    GeneratorType: "a generator",
    AsyncGeneratorType: "an async generator",
    map: "a map",
    filter: "a filter",
    starmap: "a starmap",
}
"""Classes whose objects do nothing until they are iterated."""

_CONTAINERS = frozenset({list, tuple, set, frozenset, dict})

_WORKLESS = frozenset({count, repeat, *ProxyTypes})
"""Classes of iterators that do no work: counters, and weak references, whose class has every method."""

_HOLDERS = (
    *(list, tuple, set, frozenset, deque, dict, MappingProxyType, ChainMap, SimpleNamespace),
    *(KeysView, ItemsView, ValuesView),
)
"""Classes whose objects hold others, beside models and dataclasses."""
