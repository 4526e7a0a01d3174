"""Run writes for code that cannot await them: events of a session, and threads."""

import asyncio
import threading
from collections.abc import Callable, Coroutine

from afterwards import telemetry
from afterwards.core.errors import EngineUnavailable

Write = Callable[[], Coroutine[None, None, None]]

LONGEST_WAIT = 15.0
"""Seconds to wait for such a write at most: a failing engine raises long before that."""


class UnawaitedWrites:
    """The writes of one client that are not awaited where they are started.

    Each runs on its event loop. The end of its request, the end of the client, or the thread that started it waits for
    it, never for longer than ``LONGEST_WAIT``.
    """

    def __init__(self) -> None:
        self._going_on: set[asyncio.Task[None]] = set()

    def start(self, write: Write, loop: asyncio.AbstractEventLoop | None) -> "asyncio.Task[None] | None":
        """Start a write on ``loop``, else here; in a thread, wait for it. Return the task of an unfinished write.

        Raises EngineUnavailable where no event loop runs and the write takes too long.
        """
        here = _running_loop()
        if loop is not None and loop is not here and not loop.is_closed():
            _wait_for(write, loop)
            return None
        if here is None:  # in a script
            asyncio.run(_bounded(write))
            return None
        writing = here.create_task(write())
        self._going_on.add(writing)
        writing.add_done_callback(self._going_on.discard)
        return writing

    async def finish(self) -> None:
        """Wait for the writes on this event loop."""
        here = asyncio.get_running_loop()
        if left := [one for one in self._going_on if one.get_loop() is here]:
            await asyncio.wait(left, timeout=LONGEST_WAIT)


def _wait_for(write: Write, loop: asyncio.AbstractEventLoop) -> None:
    """Wait, in a thread, for a write on an event loop elsewhere. One that takes too long continues."""
    writing = asyncio.run_coroutine_threadsafe(write(), loop)
    ended = threading.Event()
    writing.add_done_callback(lambda _: ended.set())
    if ended.wait(LONGEST_WAIT):
        writing.result()
    else:
        telemetry.not_stored_in_time(LONGEST_WAIT)


async def _bounded(write: Write) -> None:
    try:
        async with asyncio.timeout(LONGEST_WAIT):
            await write()
    except TimeoutError:
        raise EngineUnavailable(f"nothing was stored within {LONGEST_WAIT:.0f} s") from None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
