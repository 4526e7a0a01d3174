"""Open the file once in each process, for all who enter the engine there."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

from afterwards.core.errors import EngineUnavailable
from afterwards.engines.opening import OpenedInEachProcess
from afterwards.engines.sqlite.io.checks import check_place
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.io.operation import ConditionalOperation, Operation
from afterwards.engines.sqlite.io.runtime import Opened, Settings, gate, say_what_is_old


class OpenedFile(OpenedInEachProcess[Opened]):
    """The part of an engine that opens and closes. ``go_on`` is for the writer."""

    def __init__(
        self, path: Path, *, clock: Callable[[], datetime], patience: timedelta, go_on: Callable[[], Operation[Any]]
    ) -> None:
        super().__init__(str(path), gate)
        self._settings = Settings(path=path, clock=clock, patience=patience)
        self._go_on = go_on

    async def __aenter__(self) -> Self:
        """Open the file. Raises EngineError if it is not ours or too new, UnsafeFileSystem, EngineUnavailable."""
        check_place(self._settings.path)
        return await super().__aenter__()

    def _start(self) -> Opened:
        say_what_is_old()
        opened = Opened(self._settings, go_on=self._go_on)
        opened.start()
        return opened

    async def _prove(self, opened: Opened) -> None:
        await opened.writer.ask(ConditionalOperation(_nothing, needed=_never, otherwise=None))

    def _ending(self, opened: Opened, *, refused: bool) -> Callable[[], None]:
        opened.writer.hand_in()
        opened.reader.hand_in()
        return partial(opened.stop, refused=refused)

    def _inherit(self, opened: Opened) -> None:
        if opened.in_use:
            raise EngineUnavailable(
                f"this process was forked during a write to {self._settings.path}, and cannot use it"
            )


def _nothing(connection: Connection) -> None:
    """Do nothing. A thread runs it only to show whether it can open the file."""


def _never(connection: Connection) -> bool:
    return False
