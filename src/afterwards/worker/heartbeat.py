"""Renew leases from a thread of its own, so that a busy event loop loses none."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self

from afterwards import telemetry
from afterwards.core.errors import EngineError
from afterwards.core.task import Lease
from afterwards.engine import Engine, Heartbeat, Held


class Heart:
    """Beats three times a lease. ``heard`` is called on the event loop: what was asked for, and what is still held."""

    def __init__(
        self,
        engine: Engine,
        lease: timedelta,
        leases: Callable[[], Sequence[Lease]],
        heard: Callable[[Sequence[Lease], Sequence[Held]], None],
    ) -> None:
        self._engine = engine
        self._lease = lease
        self._leases = leases
        self._heard = heard
        self._thread = threading.Thread(target=self._run, name="afterwards-heartbeat", daemon=True)
        self._stopped = threading.Event()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            while not self._stopped.wait(self._lease.total_seconds() / 3):
                leases = tuple(self._leases())
                if leases:
                    self._try(runner, leases)

    def _try(self, runner: asyncio.Runner, leases: Sequence[Lease]) -> None:
        try:
            runner.run(self._beat(leases))
        except Exception as error:  # a heart that stopped would lose every lease
            telemetry.loop_broken("renew leases", error)

    async def _beat(self, leases: Sequence[Lease]) -> None:
        try:
            held = await self._engine.heartbeat([Heartbeat(lease) for lease in leases], lease=self._lease)
        except EngineError as error:
            telemetry.engine_trouble("renew leases", error, self._lease / 3)
            return
        with suppress(RuntimeError):  # the event loop is closed: the worker is gone
            self._loop.call_soon_threadsafe(self._heard, leases, held)
