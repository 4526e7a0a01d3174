"""Handle the signals that tell the process to end, before its server does."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Self

from afterwards.core.told_to_end import Asked, asked

Released = Callable[[], Coroutine[Any, Any, None]]
"""Waits until a drain has given back all tasks that can be stopped."""


class Signals:
    """Calls ``drain`` when the process is told to end, and then the previous signal handler.

    ``drain`` is called again when the process is told to end at once; a signal that is one request, heard twice, only
    reaches the previous handler. If that is the system's, which kills the process, it waits for ``released``; where the
    lifespan ends first, its caller goes on.

    Servers notify an application only when its last connection has closed. Works in the main thread; in others the
    shutdown begins only with the end of the lifespan.
    """

    def __init__(
        self, drain: Callable[[], None], released: Released | None = None, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._drain = drain
        self._released = released
        self._clock = clock
        self._heard: dict[int, float] = {}
        self._before: dict[int, Any] = {}
        self._server_ends = False
        self._told_to_die = False
        self._dying: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave_to_server()
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle:  # else a later handler would be removed
                signal.signal(number, before)

    def leave_to_server(self) -> None:
        """Let no signal kill the process from now on: its server ends, and the lifespan with it."""
        self._server_ends = True
        if self._dying is not None:
            self._dying.cancel()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._obey(self._hear(number), number, frame)

    def _hear(self, number: int) -> Asked:
        now = self._clock()
        what = asked(number, now, self._heard)
        self._heard.setdefault(number, now)
        return what

    def _obey(self, what: Asked, number: int, frame: FrameType | None) -> None:
        if what is not Asked.THE_SAME:
            self._loop.call_soon_threadsafe(self._drain)
        before = self._before[number]
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            is_blocked = self._told_to_die and self._dying is None and not self._server_ends
            if self._released is None or (what is Asked.END_NOW and is_blocked):
                _do_the_default(number)
            else:
                self._told_to_die = True
                self._loop.call_soon_threadsafe(self._die_when_released, number, self._released)

    def _die_when_released(self, number: int, released: Released) -> None:
        if not self._server_ends and self._dying is None:
            self._dying = self._loop.create_task(self._die(number, released))

    async def _die(self, number: int, released: Released) -> None:
        await released()
        _do_the_default(number)


class HeldSignals(Signals):
    """Calls ``drain`` and ``end`` at the first signal, and holds it back from the server.

    A signal that tells the process to end at once is passed on at once.
    """

    held: int | None = None
    """The signal that the server has not received yet."""

    def __init__(
        self,
        drain: Callable[[], None],
        end: Callable[[], None],
        released: Released | None = None,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(drain, released, clock=clock)
        self._end = end

    def _handle(self, number: int, frame: FrameType | None) -> None:
        what = self._hear(number)
        if what is Asked.END_NOW or self._before[number] in (signal.SIG_IGN, None):
            self._obey(what, number, frame)
        elif self.held is None:
            self.held = number
            if what is not Asked.THE_SAME:
                self._loop.call_soon_threadsafe(self._drain)
            self._loop.call_soon_threadsafe(self._end)


def _do_the_default(number: int) -> None:
    """Do what the system does at a signal: end the process."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
