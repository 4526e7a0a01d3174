"""Timeouts of attempts: a coroutine is stopped; a thread can only be checked when it ends."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any

from afterwards.execution.awaitables import awaited, done


class TimedOut(TimeoutError):
    """The attempt took longer than its timeout."""


async def within(timeout: timedelta, call: Any) -> Any:
    """Stop the call, or the awaitable that it returned, when its time is over."""
    try:
        async with asyncio.timeout(timeout.total_seconds()) as deadline:
            result = await call
            return result if done(result) else await awaited(result)
    except TimeoutError as error:
        if deadline.expired():
            raise TimedOut(f"took longer than its timeout of {timeout.total_seconds():g} s") from error
        raise


def judged(timeout: timedelta, call: Callable[[], Any]) -> Any:
    """Call a function in this thread, which cannot be stopped, and check its duration when it returns."""
    begun, error = monotonic(), None
    try:
        result = call()
    except Exception as raised:  # kept as the cause if the timeout decides
        result, error = None, raised
    took = monotonic() - begun
    if took > timeout.total_seconds():
        raise TimedOut(f"took {took:.1f} s, longer than its timeout of {timeout.total_seconds():g} s") from error
    if error is not None:
        raise error
    return result
