"""Helpers that the tests of moving share: a second engine, one record of each kind, and a whole move."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from afterwards.core.limits import Limit, Rate
from afterwards.core.schedule import StoredSchedule
from afterwards.core.settling import Cancelled, SetAside
from afterwards.core.tallies import KEPT, STEP, Tally
from afterwards.core.task import LogLine, Task
from afterwards.engine import Batch, Chunk, Engine, Fire, Heartbeat, Paused, Query
from afterwards.engines.memory import MemoryEngine
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.support import (
    ALL,
    FAILURE,
    LEASE,
    RETRY,
    SNOOZE,
    SOON,
    SUCCESS,
    Conformance,
    ids,
)

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
ONCE_A_DAY = {"greet": Limit(rate=Rate(1, DAY))}
HOURLY = {"greet": "every 1:00:00", "thank": "every 2:00:00"}
EVERYTHING = 1000
"""More records than any test has."""


@dataclass(frozen=True)
class Contents:
    """Everything that can be asked of an engine without a change."""

    tasks: list[Task]
    paused: Paused
    schedules: list[StoredSchedule]
    files: list[list[bytes]]
    tallies: list[Tally] = field(default_factory=list)


class MovingConformance(Conformance):
    """The other engine of each move is the one in memory, unless a subclass has another fixture ``other``."""

    @pytest.fixture
    def other(self, clock: FakeClock) -> Engine:
        return MemoryEngine(clock=clock)

    async def move(self, source: Engine, destination: Engine, *, limit: int = 2) -> list[Batch]:
        """Move all records. Returns the batches."""
        batches: list[Batch] = []
        done = None
        while (batch := await source.hand_over("there", limit=limit, done=done)) or done:
            if batch:
                await destination.take_over(batch)
                batches.append(batch)
            done = batch
        return batches

    async def contents(self, engine: Engine, *files: str) -> Contents:
        listed = await engine.find(Query(limit=EVERYTHING))
        return Contents(
            tasks=await engine.get(ids(listed)[::-1]),
            paused=await engine.paused(),
            schedules=await engine.register_schedules({}),
            files=[await engine.read_chunks(file, start=0, limit=EVERYTHING) for file in files],
            tallies=await engine.tallies(KEPT, STEP),
        )

    async def everything(self, engine: Engine, clock: FakeClock) -> str:
        """Store a record of each kind. Returns the id of a file."""
        first = self.task()
        await engine.enqueue([first, *(self.task(after=first.id, chained=True) for _ in range(3))])
        await engine.enqueue([self.task("thank", wait=HOUR), self.task(run_at=START + DAY, held=True, priority=5)])
        more: dict[str, Any] = {"queue": "mail", "origin": "GET /", "context": "{}", "rerun_after_crash": False}
        await engine.enqueue([self.task(overrides="{}", retention=timedelta.max, expires=DAY, limit_key="a", **more)])
        secret = self.task("thank", arguments='{"password":"x"}', secrets=("password", "return"))
        await engine.enqueue([secret, self.task(unique_key="u"), self.task(idempotency_key="i", limit_key="*")])
        clock.advance(SOON)
        for outcome in (SUCCESS, FAILURE, RETRY, SNOOZE, Cancelled("no"), SetAside("other code")):
            await self.ended(engine, outcome, retention=DAY)
        running = await self.running(engine)
        await engine.heartbeat([Heartbeat(running.lease, ALL)], lease=LEASE)
        await engine.cancel([(await self.running(engine)).id], "please")
        failed = self.task()
        await engine.enqueue([failed, self.task(after=failed.id)])
        [taken] = await self.claim(engine, ids=[failed.id])
        line = LogLine(attempt=1, at=START, level="INFO", logger="shop", message="a line")
        await engine.finish([replace(self.settled(taken, FAILURE), logs=(line, line))])
        lost = await self.running(engine)
        clock.advance(LEASE * 2)
        await self.lose(engine, [lost])
        file = self.task().id
        await engine.write_chunks(
            [Chunk(file=file, task=running.id, number=n, content=bytes([n]) * 9) for n in range(40)]
        )
        await engine.register_schedules(HOURLY)
        await engine.fire([Fire("greet", START + HOUR, self.task())])
        await engine.pause(Paused(queues=frozenset({"mail"}), names=frozenset({"x"}), schedules=frozenset({"thank"})))
        return file
