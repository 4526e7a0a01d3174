"""Renew leases and store progress, from a thread of its own, so that a busy event loop loses none."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from time import monotonic

from afterwards import telemetry
from afterwards.core.errors import EngineError
from afterwards.core.task import Lease
from afterwards.engine import Engine, Heartbeat, Held
from afterwards.worker.context import TaskContext

MOMENT = 0.25
"""Seconds between two writes of progress."""


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
        self._stays = False
        self._noted: SimpleQueue[TaskContext | None] = SimpleQueue()  # None wakes the thread

    def note(self, context: TaskContext) -> None:
        """Have an attempt's progress stored soon. May be called from any thread."""
        self._noted.put(context)

    def look(self) -> None:
        """See whether there is still anything to renew."""
        self._noted.put(None)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stay(self) -> None:
        """Beat on after the end of the worker, as long as there are leases, and then leave the engine."""
        self._stays = True

    def stop(self) -> None:
        """End, unless it stays."""
        if not self._stays:
            self._stopped.set()
        self.look()

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            try:
                self._beat_until_stopped(runner)
            finally:
                if self._stays:
                    runner.run(self._engine.__aexit__(None, None, None))

    def _beat_until_stopped(self, runner: asyncio.Runner) -> None:
        every = self._lease.total_seconds() / 3
        due = monotonic() + every
        while not self._stopped.is_set() and not (self._stays and not self._leases()):
            noted = self._gather(due)
            if monotonic() >= due:
                due = monotonic() + every
                beats = [_beat(lease, noted.get(lease)) for lease in self._leases()]
            else:
                beats = [_beat(lease, context) for lease, context in noted.items()]
            if beats and not self._stopped.is_set():
                self._try(runner, beats)

    def _gather(self, due: float) -> dict[Lease, TaskContext]:
        """What has come further until the next beat is due, or for a moment after the first of it."""
        gathered: dict[Lease, TaskContext] = {}
        with suppress(Empty):
            first = self._noted.get(timeout=max(0.0, due - monotonic()))
            self._stopped.wait(min(MOMENT, max(0.0, due - monotonic())))
            while True:
                if first is not None:
                    gathered[first.lease] = first
                first = self._noted.get_nowait()
        return gathered

    def _try(self, runner: asyncio.Runner, beats: Sequence[Heartbeat]) -> None:
        try:
            runner.run(self._beat(beats))
        except Exception as error:  # a heart that stopped would lose every lease
            telemetry.loop_broken("renew leases", error)

    async def _beat(self, beats: Sequence[Heartbeat]) -> None:
        try:
            held = await self._engine.heartbeat(beats, lease=self._lease)
        except EngineError as error:
            telemetry.engine_trouble("renew leases", error, self._lease / 3)
            return
        with suppress(RuntimeError):  # the event loop is closed: the worker is gone
            self._loop.call_soon_threadsafe(self._heard, [beat.lease for beat in beats], held)


def _beat(lease: Lease, context: TaskContext | None) -> Heartbeat:
    return Heartbeat(lease, context.progress() if context else None)
