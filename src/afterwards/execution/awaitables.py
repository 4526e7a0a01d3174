"""Await a function's result, if it is awaitable: its work is not done before."""

import asyncio
import inspect
from collections.abc import Iterable
from concurrent.futures import Future
from itertools import starmap
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from afterwards.core.serialization.compare import walk

MOST = 10
"""Maximum depth of nested awaitables that a call may return."""


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


def refuse_undone(result: Any) -> None:
    """Raise TypeError for a result that cannot be stored, because some part of it, at any depth, is still to be done.

    This takes long for a large value, so it is asked only about what cannot be stored.
    """
    if (left := undone_within(result)) is not None:
        raise TypeError(f"it returned {left}")


def undone_within(result: Any) -> str | None:
    """Describe the first part of a value, at any depth, that is still to be done. Its coroutines are closed."""
    try:
        undone = [part for part in walk(result) if _is_work(type(part)) and not _has_ended(part)]
    except BaseException:  # attributes of a user's object may raise anything
        return None
    for part in undone:
        if type(part) is CoroutineType:
            part.close()
    if not undone:
        return None
    where = "" if undone[0] is result else f"a {type(result).__name__} that contains "
    return f"{where}a {type(undone[0]).__name__}, which is never awaited: return the result of awaiting it"


def _is_work(kind: type) -> bool:
    """Return whether an object of the class is still to be awaited or iterated."""
    return kind in _LAZY or issubclass(kind, Future) or getattr(kind, "__await__", None) is not None


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
