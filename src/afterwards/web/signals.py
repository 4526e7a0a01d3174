"""Handle the signals that tell the process to end, before its server does."""

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self


class Signals:
    """Calls ``drain`` when the process is told to end, and then the previous signal handler.

    Servers notify an application only when its last connection has closed. Works in the main thread; in others the
    shutdown begins only with the end of the lifespan.
    """

    def __init__(self, drain: Callable[[], None]) -> None:
        self._drain = drain
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle:  # else a later handler would be removed
                signal.signal(number, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._drain)
        before = self._before[number]
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, before)
            signal.raise_signal(number)


class HeldSignals(Signals):
    """Calls ``end`` at the first signal, and holds it back from the server. A second signal is passed on at once."""

    held: int | None = None
    """The signal that the server has not received yet."""

    def __init__(self, drain: Callable[[], None], end: Callable[[], None]) -> None:
        super().__init__(drain)
        self._end = end

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.held is not None or not callable(self._before[number]):
            super()._handle(number, frame)
            return
        self.held = number
        self._loop.call_soon_threadsafe(self._end)
