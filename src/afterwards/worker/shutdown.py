"""End a worker: drain at the signal, give back running tasks after the grace period, unregister, store all outcomes."""

import asyncio
from datetime import timedelta

from afterwards import telemetry
from afterwards.execution.retrying import persist
from afterwards.worker.attempts import Attempts
from afterwards.worker.finisher import Finisher
from afterwards.worker.leased_task import UNTRIED, LeasedTask
from afterwards.worker.leases import Leases
from afterwards.worker.lifetime import Lifetime
from afterwards.worker.parts import CLAIMING, FINISHING, REGISTERING, SCHEDULING, Parts
from afterwards.worker.racing import first
from afterwards.worker.registration import Registration
from afterwards.worker.slots import Slots
from afterwards.worker.stopping import Stopping

CLEAN_UP_TIME = 1.0
"""Seconds that cancelled attempts have to clean up at the end of a shutdown."""

LAST_WRITES = 5.0
"""Seconds that a failing engine may delay a shutdown. Leases that it has not released by then expire by themselves."""


class Shutdown:
    """Takes a worker from the signal to its end."""

    def __init__(
        self,
        grace: timedelta,
        *,
        slots: Slots[LeasedTask],
        leases: Leases,
        attempts: Attempts,
        stopping: Stopping,
        finisher: Finisher,
        registration: Registration,
        parts: Parts,
        lifetime: Lifetime,
    ) -> None:
        self._grace = grace
        self._slots = slots
        self._leases = leases
        self._attempts = attempts
        self._stopping = stopping
        self._finisher = finisher
        self._registration = registration
        self._parts = parts
        self._lifetime = lifetime
        self._asked: set[LeasedTask] = set()  # to stop: a second cancellation would interrupt their clean-up
        self._logged: set[LeasedTask] = set()  # as not having stopped
        self._told = False  # to drain
        self._releasing: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._unregistered = False

    def drain(self) -> None:
        """Stop claiming and firing; give back running tasks after the grace period. A second call ends that period.

        Called on the event loop. The lifespan may end long after the signal, because clients stay connected.
        """
        if self._told:
            self._lifetime.hurried.set()
        self._told = True
        self._begin()

    async def released(self) -> None:
        """Wait until running tasks have been given back and all outcomes are stored. A failing engine may delay it."""
        await self._lifetime.released.wait()
        assert self._leaving is not None
        await asyncio.wait([self._leaving], timeout=LAST_WRITES)

    def _begin(self) -> None:
        if self._lifetime.draining.is_set():
            return
        self._lifetime.draining.set()
        self._parts.stop(SCHEDULING)
        for leased in list(self._slots.ready):
            self._attempts.end(leased, UNTRIED)
        self._releasing = self._parts.run_once(self._release())
        if self._leases:
            telemetry.draining(len(self._leases), self._grace)

    async def finish(self) -> None:
        """Drain, give back tasks that still run after the grace period, and store all outcomes."""
        self._begin()  # nobody has told it to: a signal that comes now is the first
        assert self._releasing is not None
        await asyncio.wait([self._releasing])
        await self._give_back()
        await first(self._leave_all_stored(), timeout=LAST_WRITES)
        await self._stopping.let_go()
        self._lifetime.over = True
        self._parts.stop_all()

    async def _release(self) -> None:
        """Give back running tasks after the grace period or at the second signal; then unregister.

        From then on nothing counts as a crash, should the process be killed because a client stays connected.
        """
        if running := list(self._attempts.running):
            await first(asyncio.wait(running), self._lifetime.hurried.wait(), timeout=self._grace.total_seconds())
        await self._give_back()
        self._lifetime.released.set()
        self._leaving = self._parts.run_once(self._unregister())

    async def _give_back(self) -> None:
        """Give back tasks that have stopped. One that still runs keeps its lease: it must not begin elsewhere."""
        for leased in self._leases:
            if not leased.ended and leased not in self._asked:
                self._asked.add(leased)
                self._stopping.stop(leased, leased.given_back, at_once=True)
        if stopping := [attempt for attempt in self._attempts.running if attempt.cancelling()]:
            await asyncio.wait(stopping, timeout=CLEAN_UP_TIME)
        for leased in self._attempts.running.values():
            if leased not in self._logged:
                self._logged.add(leased)
                telemetry.still_running(leased.task)

    async def _leave_all_stored(self) -> None:
        if self._leaving is not None:
            await asyncio.wait([self._leaving])
        if not self._unregistered:  # it was cancelled, as all was
            await self._unregister()
        await self._all_stored()

    async def _unregister(self) -> None:
        await self._all_stored()
        self._parts.stop(REGISTERING)
        await persist("unregister", self._registration.unregister)
        self._unregistered = True

    async def _all_stored(self) -> None:
        await self._parts.ended(CLAIMING)  # tasks that it claimed when the drain began have been given back
        if self._parts.has_ended(FINISHING):  # a forced shutdown of the server cancels everything, including this
            await self._finisher.store()
        await self._finisher.all_stored()
