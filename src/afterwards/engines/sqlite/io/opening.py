"""Open the file once in each process, for all who enter the engine there."""

import asyncio
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from afterwards.core.errors import EngineUnavailable
from afterwards.core.shortage import is_shortage
from afterwards.engines.sqlite.io.checks import check_place
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.io.operation import ConditionalOperation, Operation
from afterwards.engines.sqlite.io.runtime import Opened, Settings, gate, say_what_is_old


class OpenedInEachProcess:
    """The part of an engine that opens and closes. ``go_on`` is for the writer."""

    def __init__(
        self, path: Path, *, clock: Callable[[], datetime], patience: timedelta, go_on: Callable[[], Operation[Any]]
    ) -> None:
        self._settings = Settings(path=path, clock=clock, patience=patience)
        self._go_on = go_on
        self._opened: Opened | None = None
        self._users = 0

    async def __aenter__(self) -> Self:
        """Open the file. Raises EngineError if it is not ours or too new, UnsafeFileSystem, EngineUnavailable."""
        check_place(self._settings.path)
        with gate:
            self._users += 1
        try:
            await self._here().writer.ask(ConditionalOperation(_nothing, needed=_never, otherwise=None))
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
        with gate:
            self._users -= 1
            if self._users > 0:
                return
            opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            opened.writer.hand_in()
            opened.reader.hand_in()
            try:
                await asyncio.to_thread(opened.stop, refused=refused)
            except RuntimeError as error:
                if not is_shortage(error):
                    raise
                opened.stop(refused=refused)  # the system has no thread left: then stop in this one

    def _here(self) -> Opened:
        """Return the opened parts in this process. A fork opens its own."""
        opened = self._opened
        if opened is None or opened.pid != os.getpid():
            with gate:
                opened = self._open()
        return opened

    def _open(self) -> Opened:
        if self._users == 0:
            raise EngineUnavailable(f"{self._settings.path} is not open: enter the engine with `async with` first")
        if self._opened is None or self._opened.pid != os.getpid():
            if self._opened and self._opened.in_use:
                raise EngineUnavailable(
                    f"this process was forked during a write to {self._settings.path}, and cannot use it"
                )
            say_what_is_old()
            try:
                opened = Opened(self._settings, go_on=self._go_on)
                opened.start()
            except (OSError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and not is_shortage(error):
                    raise
                needs = "; its folder must be writable" if isinstance(error, PermissionError) else ""
                raise EngineUnavailable(f"{self._settings.path} cannot be opened: {error}{needs}") from error
            self._opened = opened
        return self._opened


def _nothing(connection: Connection) -> None:
    """Do nothing. A thread runs it only to show whether it can open the file."""


def _never(connection: Connection) -> bool:
    return False
