"""Tell a waiting worker of the engine's own process that there is something to claim."""

import asyncio
import threading
from contextlib import suppress
from datetime import timedelta


class Wakeup:
    """An event that is set from any thread and awaited on any event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._waiting: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}

    def set(self) -> None:
        with self._lock:
            self._set = True
            waiting, self._waiting = self._waiting, {}
        for future, loop in waiting.items():
            with suppress(RuntimeError):  # its loop is closed: nobody waits there any more
                loop.call_soon_threadsafe(future.set_result, None)

    def clear(self) -> None:
        self._set = False

    async def wait(self, timeout: timedelta) -> None:
        """Return when it is set, or when the time is over."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._set:
                return
            self._waiting[future] = loop
        try:
            await asyncio.wait([future], timeout=timeout.total_seconds())
        finally:
            with self._lock:
                self._waiting.pop(future, None)
