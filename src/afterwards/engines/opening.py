"""Open the parts of an engine once in each process, for all who enter the engine there."""

import asyncio
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from afterwards.core.errors import EngineUnavailable
from afterwards.core.shortage import is_shortage


class Parts(Protocol):
    """The part of an engine that a fork must not share: threads, connections, locks."""

    pid: int  # of the process that opened it


P = TypeVar("P", bound=Parts)


class OpenedInEachProcess(ABC, Generic[P]):
    """The part of an engine that opens and closes.

    ``shown`` names the store in messages. ``gate`` is held during any open and close, and by the engine's handlers
    during a fork.
    """

    def __init__(self, shown: str, gate: threading.RLock) -> None:
        self._shown = shown
        self._gate = gate
        self._opened: P | None = None
        self._users = 0

    async def __aenter__(self) -> Self:
        """Open the store. Raises EngineError, or EngineUnavailable, also if the system has no thread left."""
        with self._gate:
            self._users += 1
        try:
            await self._prove(self._here())
        except BaseException:
            await self._leave(refused=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish the calls made so far, then leave."""
        await self._leave()

    async def _leave(self, *, refused: bool = False) -> None:
        with self._gate:
            self._users -= 1
            if self._users > 0:
                return
            opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            stop = self._ending(opened, refused=refused)
            try:
                await asyncio.to_thread(stop)
            except RuntimeError as error:
                if not is_shortage(error):
                    raise
                stop()  # the system has no thread left: then stop in this one

    def _here(self) -> P:
        """Return the opened parts in this process. A fork opens its own."""
        opened = self._opened
        if opened is None or opened.pid != os.getpid():
            with self._gate:
                opened = self._open()
        return opened

    def _open(self) -> P:
        if self._users == 0:
            raise EngineUnavailable(f"{self._shown} is not open: enter the engine with `async with` first")
        if self._opened is None or self._opened.pid != os.getpid():
            if self._opened is not None:
                self._inherit(self._opened)
            try:
                self._opened = self._start()
            except (OSError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and not is_shortage(error):
                    raise
                needs = "; its folder must be writable" if isinstance(error, PermissionError) else ""
                raise EngineUnavailable(f"{self._shown} cannot be opened: {error}{needs}") from error
        return self._opened

    @abstractmethod
    def _start(self) -> P:
        """Return new parts, started. An OSError and a lack of threads are translated."""

    @abstractmethod
    async def _prove(self, opened: P) -> None:
        """Return if the store can be used, else raise an error."""

    @abstractmethod
    def _ending(self, opened: P, *, refused: bool) -> Callable[[], None]:
        """Return the blocking function that stops the parts. ``refused``: the store could not be opened."""

    @abstractmethod
    def _inherit(self, opened: P) -> None:
        """Deal with the parts that this process has from its parent. Raises EngineUnavailable if none may be opened."""
