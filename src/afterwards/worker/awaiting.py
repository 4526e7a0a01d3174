"""Awaitables that a function returned: what it was called for is done only when they are."""

import asyncio
import inspect
from concurrent.futures import Future
from types import AsyncGeneratorType, GeneratorType
from typing import Any

MOST = 10
"""Awaitables one within another that a call may return."""


async def awaited(result: Any) -> Any:
    """What a function gives in the end, which may have returned a coroutine, a future, or another awaitable.

    Raises TypeError for a generator, which nobody iterates: its body has not run.
    """
    for _ in range(MOST):
        if done(result):
            return result
        if is_generator(result):
            raise TypeError(f"it returned {kind_of(result)}, whose body has not run: make it a function that returns")
        result = await (asyncio.wrap_future(result) if issubclass(type(result), Future) else result)
    raise TypeError(f"it returned an awaitable that gives another one, {MOST} times in a row")


def done(result: Any) -> bool:
    """Whether nothing has to happen any more. Asks the class: an object may raise when it is asked for anything."""
    kind = type(result)
    return not (kind in _GENERATORS or issubclass(kind, Future) or getattr(kind, "__await__", None) is not None)


def is_generator(result: Any) -> bool:
    """Whether it does nothing as long as nobody iterates it."""
    return type(result) in _GENERATORS and not inspect.isawaitable(result)


def kind_of(generator: Any) -> str:
    return "an async generator" if type(generator) is AsyncGeneratorType else "a generator"


_GENERATORS = (GeneratorType, AsyncGeneratorType)
