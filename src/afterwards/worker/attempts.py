"""Start leased tasks in free slots, and end them."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from afterwards import telemetry
from afterwards.core.settling import Outcome, Raised, Released, Succeeded
from afterwards.core.task import Task
from afterwards.execution.attempt import attempt
from afterwards.execution.context import TaskContext
from afterwards.execution.function import Functions
from afterwards.execution.lateness import Lateness
from afterwards.execution.surroundings import Surroundings
from afterwards.execution.threads import made_from_here
from afterwards.worker.ends import Ends
from afterwards.worker.heartbeat import HeartbeatThread
from afterwards.worker.leased_task import UNTRIED, Event, LeasedTask, Phase
from afterwards.worker.leases import Leases
from afterwards.worker.lending import Lending
from afterwards.worker.lifetime import Lifetime
from afterwards.worker.loop_watchdog import LoopWatchdog
from afterwards.worker.parts import FINISHING, Parts
from afterwards.worker.slots import Slots
from afterwards.worker.spawner import Spawner

LOOK_EVERY = 0.1
"""Seconds between two checks of a thread call that nobody awaits any more."""


class Attempts:
    """The attempts of a worker. Every leased task starts and ends here."""

    def __init__(
        self,
        functions: Functions,
        surroundings: Surroundings,
        *,
        slots: Slots[LeasedTask],
        leases: Leases,
        ends: Ends,
        heartbeat: HeartbeatThread,
        spawner: Spawner,
        parts: Parts,
        lifetime: Lifetime,
        lateness: Lateness,
    ) -> None:
        self.watchdog = LoopWatchdog(self, lateness)
        self._functions = functions
        self._surroundings = surroundings
        self._slots = slots
        self._leases = leases
        self._ends = ends
        self._heartbeat = heartbeat
        self._spawner = spawner
        self._parts = parts
        self._lifetime = lifetime
        self._lending = Lending(slots, surroundings.threads, spawner, self)
        self._running: dict[asyncio.Task[None], LeasedTask] = {}

    @property
    def running(self) -> Mapping["asyncio.Task[None]", LeasedTask]:
        """The attempts that have started and not ended."""
        return self._running

    # Used by the claimer (claimer.Taker).

    def take(self, tasks: Sequence[Task]) -> None:
        """Start claimed tasks. With none, start tasks that waited for slots reserved by the claim."""
        self.launch([self.add(task) for task in tasks])

    def give_back(self, tasks: Sequence[Task]) -> None:
        """Give back those of the tasks that have not started."""
        for task in tasks:
            leased = self._leases.get(task.lease)
            if leased and leased.unstarted:
                self.end(leased, UNTRIED)

    def add(self, task: Task, phase: Phase = Phase.READY) -> LeasedTask:
        """Hold the lease of a task."""
        leased = LeasedTask(task, task.lease, self._functions.get(task.name), self, phase)
        self._leases.add(leased)
        return leased

    def launch(self, ready: Iterable[LeasedTask]) -> None:
        """Start tasks, each once a slot is free; a worker that drains gives them back."""
        self._slots.ready.extend(ready)
        if not self._lifetime.draining.is_set():
            self.fill()
            return
        for leased in list(self._slots.ready):
            self.end(leased, UNTRIED)

    def fill(self) -> None:
        """Start ready tasks in the free slots."""
        slots = self._slots
        while slots.ready and (leased := slots.next()):
            # The dictionary keeps the task alive; the event loop does not. A task group would wait for a function that
            # ignores its cancellation, and would delay the shutdown.
            leased.move(Event.SLOT_TAKEN)
            leased.asyncio_task = self._spawner.start(self._attempt(leased))
            self._running[leased.asyncio_task] = leased
            self.watchdog.begin()

    def end(self, leased: LeasedTask, outcome: Outcome) -> None:
        """Free the slot of a task, and have its outcome stored. Only the first call counts."""
        before = leased.phase
        if not leased.move(Event.ENDED):
            return
        match before:
            case Phase.HELD:
                self._slots.release()
            case Phase.READY:
                self._slots.drop(leased)
            case _:
                self._free(leased)
        self._ends.settle(leased, outcome)

    # Used by leased tasks (leased_task.Host).

    def note(self, context: TaskContext) -> None:
        self._heartbeat.note(context)

    def lending(self, leased: LeasedTask) -> AbstractContextManager[None]:
        return self._lending.lending(leased)

    # Used by the watchdog (loop_watchdog.Watched).

    def attempted_by(self, asyncio_task: "asyncio.Task[Any]") -> Task | None:
        leased = self._running.get(asyncio_task)
        return leased.task if leased else None

    def any_running(self) -> bool:
        return bool(self._running)

    async def _attempt(self, leased: LeasedTask) -> None:
        leased.begin(self._spawner.loop.time())
        leased.calls = made_from_here() if leased.may_use_threads else ()
        outcome: Outcome
        try:
            outcome = await attempt(leased.function, leased.task, self._surroundings, leased)
        except asyncio.CancelledError as error:
            released = Released(begun=leased.may_have_begun)
            outcome = leased.stop or (released if self._all_is_ending else Raised(error=error))
        except BaseException as error:  # every attempt must get an outcome
            if not self._spawner.loop.is_running():  # this coroutine is being closed, and so is the worker
                raise
            outcome = Raised(error=error)
        if leased.stop and not isinstance(outcome, Succeeded):
            outcome = leased.stop
        if not leased.in_thread:
            self.end(leased, outcome)
        elif not self._all_is_ending:  # cancelled from outside
            self._spawner.start_and_keep(self._end_with_its_thread(leased, outcome))
            return
        else:  # at the end of the event loop, for example
            leased.move(Event.LEFT)
            telemetry.still_running(leased.task)
            return
        if self._lifetime.over:
            await self._ends.finisher.store()
            self._heartbeat.look()

    async def _end_with_its_thread(self, leased: LeasedTask, outcome: Outcome) -> None:
        """Keep the slot and the lease while a thread still runs, although the coroutine has ended."""
        while leased.in_thread:  # noqa: ASYNC110  # no event reports its end: nobody awaits it
            await asyncio.sleep(LOOK_EVERY)
        self.end(leased, outcome)

    @property
    def _all_is_ending(self) -> bool:
        """Return whether the worker drains, or everything is cancelled, for example by a forced server shutdown."""
        return self._lifetime.draining.is_set() or self._parts.is_being_cancelled(FINISHING)

    def _free(self, leased: LeasedTask) -> None:
        """Free the slot of a task that had started."""
        assert leased.asyncio_task is not None
        self._running.pop(leased.asyncio_task, None)
        self._lending.end(leased)
        self._slots.leave()
        self.fill()
