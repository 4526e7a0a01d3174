"""Fixtures and helpers that the tests of the suite share."""

import os
from collections.abc import Collection, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from afterwards.core.limits import Limit
from afterwards.core.progress import Progress
from afterwards.core.retry import Retry
from afterwards.core.settling import Outcome, Raised, Released, Settled, Snoozed, Succeeded, lose, settle
from afterwards.core.task import Lease, NewTask, State, Task, task_id
from afterwards.engine import Claim, Engine
from afterwards.testing.clock import START, FakeClock

LEASE = timedelta(seconds=30)
SOON = timedelta(seconds=10)
MICROSECOND = timedelta(microseconds=1)
"""The precision with which an engine keeps instants and spans, at least."""
SUCCESS = Succeeded()
FAILURE = Raised(error=ValueError("no"))
RETRY = Raised(error=ValueError("not yet"), delay=SOON)
"""An outcome that is retried with ``Retry(1)`` or more, which the helpers below set."""
HALF, ALL = Progress(done=1, total=2, description="rows"), Progress(done=2, total=2, description="rows")
SNOOZE = Snoozed(SOON)
RELEASE = Released()


class Conformance:
    """The fixtures and helpers; a subclass replaces ``engine``."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def engine(self, clock: FakeClock) -> Engine:
        raise NotImplementedError("give your class a fixture `engine`: an opened engine that reads `clock`")

    def task(self, name: str = "greet", **fields: Any) -> NewTask:
        """Return a call to store. Its id does not show the order in which calls were made."""
        return NewTask(**{"id": task_id(START, os.urandom(10)), "name": name, "arguments": "{}"} | fields)

    def claim_for(
        self,
        worker: str = "worker",
        *,
        limit: int = 100,
        lease: timedelta = LEASE,
        names: Collection[str] = ("greet",),
        queues: Collection[str] | None = None,
        suspects: int = 1,
        ids: Collection[str] | None = None,
        starts: Collection[Lease] | None = None,
        limits: Mapping[str, Limit] = MappingProxyType({}),
    ) -> Claim:
        return Claim(
            worker=worker,
            limit=limit,
            lease=lease,
            names=frozenset(names),
            queues=None if queues is None else frozenset(queues),
            suspects=suspects,
            ids=None if ids is None else frozenset(ids),
            starts=None if starts is None else frozenset(starts),
            limits=limits,
        )

    async def claim(self, engine: Engine, worker: str = "worker", **fields: Any) -> list[Task]:
        return await engine.claim(self.claim_for(worker, **fields))

    async def running(self, engine: Engine, **fields: Any) -> Task:
        """Return a task that has just been stored and claimed."""
        new = self.task(**fields)
        await engine.enqueue([new])
        [task] = await self.claim(engine, names=[new.name], ids=[new.id])
        return task

    async def ended(self, engine: Engine, outcome: Outcome = SUCCESS, **fields: Any) -> Task:
        """Return a task that was stored, claimed and finished with this outcome."""
        task = await self.running(engine, **fields)
        assert await self.finish(engine, task, outcome) == []
        return await self.one(engine, task)

    async def succeed(self, engine: Engine, *tasks: Task) -> None:
        assert await engine.finish([self.settled(task, SUCCESS) for task in tasks]) == []

    async def finish(self, engine: Engine, task: Task, outcome: Outcome) -> list[Lease]:
        """End the attempt. Returns the lease if it was refused."""
        return await engine.finish([self.settled(task, outcome)])

    async def lose(self, engine: Engine, tasks: Collection[Task]) -> list[Lease]:
        """Give up attempts whose worker is dead, as another worker does. Returns the refused leases."""
        return await engine.finish([self.lost(task) for task in tasks])

    def lost(self, task: Task) -> Settled:
        return lose(task, now=task.lease_until or START)

    def settled(self, task: Task, outcome: Outcome, retry: Retry | None = None) -> Settled:
        retry = retry or (Retry(100) if outcome is RETRY else Retry(0))
        return settle(task, outcome, retry, worker="worker", now=task.started_at or START, random=0.5)

    async def one(self, engine: Engine, task: Task | NewTask) -> Task:
        """Return the task as it is stored now."""
        [stored] = await engine.get([task.id])
        return stored

    async def states(self, engine: Engine, *tasks: Task | NewTask) -> list[State]:
        return [task.state for task in await engine.get([task.id for task in tasks])]


def ids(tasks: Collection[Task | NewTask]) -> list[str]:
    return [task.id for task in tasks]
