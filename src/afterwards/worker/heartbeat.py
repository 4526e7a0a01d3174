"""Renew leases and store progress from a separate thread, so that a busy event loop loses no lease."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Protocol

from afterwards import telemetry
from afterwards.core.errors import EngineError, EngineUnavailable
from afterwards.core.task import Lease
from afterwards.engine import Engine, Heartbeat, Held
from afterwards.execution.context import TaskContext
from afterwards.execution.health import Health

DOING = "renew leases"

AFTER_A_FAILURE = 0.25
"""Seconds until the next renewal after an internal error."""

RETRY = 1.0
"""Seconds until a failed heartbeat is retried: the lease of a live worker must not expire meanwhile."""

PROGRESS_EVERY = 0.25
"""Seconds between two writes of progress."""


class Renewed(Protocol):
    """Acts on the results of a heartbeat, on the event loop."""

    def renewed(self, asked: Sequence[Lease], held: Sequence[Held]) -> None:
        """Handle a renewal: of the leases ``asked`` for, those in ``held`` are still held."""
        ...


class Renewable(Protocol):
    """Knows which leases are to be renewed. Called in the heartbeat's thread."""

    def to_renew(self) -> Sequence[Lease]: ...


class HeartbeatThread:
    """Renews the leases of a worker three times per lease duration."""

    def __init__(
        self,
        engine: Engine,
        lease: timedelta,
        leases: Renewable,
        health: Health,
    ) -> None:
        self._health = health
        self._engine = engine
        self._lease = lease
        self._leases = leases
        self._thread = threading.Thread(target=self._run, name="afterwards-heartbeat", daemon=True)
        self._stopped = threading.Event()
        self._hurried = threading.Event()
        self._stays = False
        self.noted = 0  # grows when an attempt has reported progress
        self._noted: SimpleQueue[TaskContext | None] = SimpleQueue()  # None wakes the thread

    def note(self, context: TaskContext) -> None:
        """Have an attempt's progress stored soon. May be called from any thread."""
        self.noted += 1
        self._noted.put(context)

    def hurry(self) -> None:
        """Renew all leases now. May be called from any thread."""
        self._hurried.set()
        self.look()

    def look(self) -> None:
        """Check whether there is still anything to renew."""
        self._noted.put(None)

    async def start(self, listener: Renewed) -> None:
        """Start, on the worker's event loop. Raises OSError or RuntimeError in a shortage."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        loop = self._runner.get_loop()  # created here: in the thread, a shortage of descriptors would end it silently
        try:
            self._thread.start()
        except BaseException:
            loop.close()
            raise

    def stay(self) -> None:
        """Keep renewing after the worker has ended, as long as it holds leases, and then close the engine."""
        self._stays = True

    def stop(self) -> None:
        """Stop, unless ``stay`` was called."""
        if not self._stays:
            self._stopped.set()
        self.look()

    def _run(self) -> None:
        with self._runner as runner:
            try:
                self._beat_until_stopped(runner)
            finally:
                if self._stays:
                    runner.run(self._engine.__aexit__(None, None, None))

    def _beat_until_stopped(self, runner: asyncio.Runner) -> None:
        every = self._lease.total_seconds() / 3
        pause, wait = every, AFTER_A_FAILURE
        while self._goes_on():
            try:
                answered = self._beat_once(runner, pause)
                pause = every if answered else min(every, RETRY)
                wait = AFTER_A_FAILURE
            except BaseException as error:  # without a heartbeat every lease would be lost
                self._health.failed(DOING, error)
                pause, wait = min(every, wait), wait * 2

    def _goes_on(self) -> bool:
        return not self._stopped.is_set() and not (self._stays and not self._leases.to_renew())

    def _beat_once(self, runner: asyncio.Runner, pause: float) -> bool:
        """Store progress until the pause is over, then renew all leases. Return whether the engine answered."""
        due, answered = monotonic() + pause, True
        while self._goes_on():
            noted = self._gather(due)
            all_of_them = monotonic() >= due or self._hurried.is_set()
            if all_of_them:
                self._hurried.clear()
            leases = self._leases.to_renew() if all_of_them else noted
            beats = [_heartbeat(lease, noted.get(lease)) for lease in leases]
            if beats and not self._stopped.is_set():
                answered = runner.run(self._beat(beats))
                self._health.well(DOING)
            if all_of_them or not answered:
                return answered
        return answered

    def _gather(self, due: float) -> dict[Lease, TaskContext]:
        """Return contexts with new progress: those noted within 0.25 s of the first one, before the next heartbeat."""
        gathered: dict[Lease, TaskContext] = {}
        with suppress(Empty):
            first = self._noted.get(timeout=max(0.0, due - monotonic()))
            self._stopped.wait(min(PROGRESS_EVERY, max(0.0, due - monotonic())))
            while True:
                if first is not None:
                    gathered[first.lease] = first
                first = self._noted.get_nowait()
        return gathered

    async def _beat(self, beats: Sequence[Heartbeat]) -> bool:
        try:
            held = await self._renew(beats)
        except EngineError as error:
            telemetry.engine_trouble(DOING, error, timedelta(seconds=RETRY))
            return False
        with suppress(RuntimeError):  # the event loop is closed: the worker is gone
            self._loop.call_soon_threadsafe(self._listener.renewed, [beat.lease for beat in beats], held)
        return True

    async def _renew(self, beats: Sequence[Heartbeat]) -> list[Held]:
        """Renew leases and store progress. If the progress cannot be stored, renew the leases alone."""
        try:
            return await self._engine.heartbeat(beats, lease=self._lease)
        except EngineUnavailable:
            raise
        except Exception as error:
            if all(beat.progress is None for beat in beats):
                raise
            telemetry.not_shown(error)
            return await self._engine.heartbeat([Heartbeat(beat.lease) for beat in beats], lease=self._lease)


def _heartbeat(lease: Lease, context: TaskContext | None) -> Heartbeat:
    return Heartbeat(lease, context.shown() if context else None)
