"""Claim the attempts that a fleet has brought to this process."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta

from afterwards.core.errors import EngineError
from afterwards.core.task import Lease
from afterwards.engine import Claim, Engine
from afterwards.execution.function import Functions
from afterwards.execution.health import Health
from afterwards.execution.retrying import persist
from afterwards.worker.parts import CLAIMING
from afterwards.worker.racing import first
from afterwards.worker.task_runner import TaskRunner

End = asyncio.Future[None]
"""Done when the end of an attempt is stored, or its lease is lost and it runs no more."""


class Arrivals:
    """Claims what arrives, until its worker drains. Those that arrive meanwhile share the next claim."""

    def __init__(
        self, engine: Engine, functions: Functions, runner: TaskRunner, *, lease: timedelta, health: Health
    ) -> None:
        self._engine = engine
        self._functions = functions
        self._runner = runner
        self._lease = lease
        self._health = health
        self._draining = runner.lifetime.draining
        self._arrived: dict[Lease, asyncio.Future[End | None]] = {}  # not claimed yet
        self._some = asyncio.Event()

    async def claim(self, lease: Lease) -> End | None:
        """Claim an attempt, and start it. None if the claim was refused, for example because it was brought twice."""
        if self._draining.is_set():
            await self._pass_on({lease})
            return None
        if lease in self._arrived or lease in self._runner.leases:
            return None
        answer: asyncio.Future[End | None] = asyncio.get_running_loop().create_future()
        self._arrived[lease] = answer
        self._some.set()
        return await answer

    async def run(self) -> None:
        """Claim until the worker drains. What has arrived and is not claimed by then is passed on."""
        while not self._draining.is_set():
            await first(self._some.wait(), self._draining.wait())
            if self._some.is_set() and not self._draining.is_set():
                await self._claim_all()
                self._health.well(CLAIMING)
        await self._pass_on({*self._arrived})
        self._answer(self._arrived.copy(), {})

    async def _claim_all(self) -> None:
        self._some.clear()
        asked = self._arrived.copy()
        try:
            claim = self._claim(asked, limit=len(asked))
            tasks = await persist("claim tasks that have arrived", lambda: self._engine.claim(claim))
        except BaseException:
            self._some.set()  # they are claimed when this part runs again
            raise
        ends = {task.lease: self._runner.leases.ending(task.lease) for task in tasks}
        self._runner.attempts.take(tasks)
        self._answer(asked, ends)

    def _answer(self, asked: Collection[Lease], ends: dict[Lease, End]) -> None:
        for lease in asked:
            answer = self._arrived.pop(lease)
            if not answer.done():  # else nobody waits for it any more; if it was claimed, it runs all the same
                answer.set_result(ends.get(lease))

    async def _pass_on(self, leases: Collection[Lease]) -> None:
        """Tell the engine that these have arrived in vain: a dispatcher sends them again at once."""
        if leases:
            with suppress(EngineError):  # they are sent again a little later
                await self._engine.claim(self._claim(leases, limit=0))

    def _claim(self, leases: Collection[Lease], *, limit: int) -> Claim:
        return Claim(
            worker=self._runner.id,
            limit=limit,
            lease=self._lease,
            names=self._functions.names,
            suspects=0 if self._runner.leases.suspects else 1,
            limits=self._functions.limits,
            starts=frozenset(leases),
        )
