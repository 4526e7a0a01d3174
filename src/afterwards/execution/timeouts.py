"""Timeouts of attempts: a coroutine is stopped; a thread can only be checked when it ends."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

from afterwards.execution.awaitables import awaited, done


class TimedOut(TimeoutError):
    """The attempt took longer than its timeout."""


class Deadline:
    """The end of the time of one attempt, which stands still while a thread runs its function."""

    __slots__ = ("_scope", "timeout")

    def __init__(self, timeout: timedelta) -> None:
        self.timeout = timeout
        self._scope: asyncio.Timeout | None = None  # while a call is awaited

    @property
    def ends_at(self) -> float | None:
        """When its time is over, by the event loop's clock. None while it stands still, and once the call has ended."""
        return None if self._scope is None else self._scope.when()

    async def within(self, call: Awaitable[Any]) -> Any:
        """Stop the call, or the awaitable that it returned, when its time is over."""
        try:
            async with asyncio.timeout(self.timeout.total_seconds()) as self._scope:
                result = await call
                return result if done(result) else await awaited(result)
        except TimeoutError as error:
            if self._scope is not None and self._scope.expired():
                raise self._timed_out() from error
            raise
        finally:
            self._scope = None

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Add the time that the block takes: what it awaits must not be cancelled. Raises TimedOut if time is over."""
        scope, loop = self._scope, asyncio.get_running_loop()
        assert scope is not None
        ends_at = scope.when()
        if ends_at is None or scope.expired():
            raise self._timed_out()
        left = ends_at - loop.time()
        scope.reschedule(None)
        try:
            yield
        finally:
            scope.reschedule(loop.time() + left)

    def _timed_out(self) -> TimedOut:
        return TimedOut(f"took longer than its timeout of {self.timeout.total_seconds():g} s")


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
