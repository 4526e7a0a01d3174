"""Threads for ``def`` functions: apart from the endpoints', and no obstacle to a process that wants to end."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from math import inf
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from anyio.lowlevel import current_token

try:
    from anyio._core._eventloop import threadlocals
except ImportError:  # another version keeps it elsewhere: then `anyio.from_thread` asks for a token in our threads
    threadlocals = threading.local()

T = TypeVar("T")

Ended = tuple[T | None, BaseException | None]
"""How a call ended: what it returned, or what it raised."""


class Threads:
    """At most ``size`` daemon threads, started when needed. (anyio's threads keep the interpreter from ending.)"""

    def __init__(self, size: float = inf) -> None:
        self._size = size
        self._count = 0
        self._idle = threading.Semaphore(0)
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function in a thread, with the caller's context variables. Cancelled, it goes on there unheard."""
        return returned(await self.begin(function))

    def begin(self, function: Callable[[], T]) -> "asyncio.Future[Ended[T]]":
        """Call a function in a thread. How it ended is a value: not every exception can be one of a future."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ended[T]] = loop.create_future()
        context = copy_context()
        token = current_token()

        def call() -> None:
            threadlocals.current_token = token  # so that functions may call back with `anyio.from_thread`
            ended: Ended[T]
            try:
                ended = context.run(function), None
            except BaseException as error:  # whatever the user's function raises is its outcome
                ended = None, error
            with suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
                loop.call_soon_threadsafe(_end, future, ended)

        self._calls.put(call)
        if not self._idle.acquire(blocking=False) and self._count < self._size:
            self._count += 1
            threading.Thread(target=self._work, name=f"afterwards-{self._count}", daemon=True).start()
        return future

    def close(self) -> None:
        """Let the threads end after what they do now."""
        for _ in range(self._count):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._next()) is not None:
            call()
            del call  # nothing of the last call stays alive while the thread is idle

    def _next(self) -> Callable[[], None] | None:
        try:
            return self._calls.get_nowait()
        except Empty:
            self._idle.release()
            return self._calls.get()


def returned(ended: Ended[T]) -> T:
    """What a function returned; raises what it raised."""
    result, error = ended
    if error is None:
        return result  # type: ignore[return-value]  # one of the two is there
    try:
        raise error
    finally:
        del ended, error  # each of which holds this frame by the traceback


def _end(future: "asyncio.Future[Ended[Any]]", ended: Ended[Any]) -> None:
    if not future.done():
        future.set_result(ended)
