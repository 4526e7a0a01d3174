"""What a worker claims ahead of its free slots, while tasks end quickly."""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from afterwards import task
from afterwards.core.options import Options
from afterwards.core.retry import Retry
from afterwards.core.settling import Released, lose, settle
from afterwards.core.task import NewTask, State, Task, task_id
from afterwards.engine import Claim, Query
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.engines.sqlite.io import runtime
from afterwards.engines.sqlite.io.operation import FunctionOperation
from afterwards.engines.sqlite.operations import storing
from afterwards.tasks.registry import registry
from afterwards.worker import claim_ahead
from afterwards.worker.claimer import Claimer
from afterwards.worker.leases import Suspects
from afterwards.worker.lifetime import Lifetime
from afterwards.worker.slots import Slots

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

TIMEOUT = 4.0
"""Seconds of real time after which what should happen is held to be missing: less than an idle worker's pause."""


@task
async def greet() -> None: ...


@task(max_concurrency=1)
async def greet_alone() -> None: ...


class Worker:
    """What came of its claims; it starts nothing."""

    def __init__(self, engine: SQLiteEngine, slots: int, *, ended: int) -> None:
        self.slots: Slots[None] = Slots(slots, lambda: 1.0)
        for _ in range(ended):
            self.slots.ready.append(None)
            self.slots.next()
            self.slots.leave()
        self.taken: list[Task] = []
        self.given_back: list[Task] = []
        lifetime = Lifetime()
        self.draining = lifetime.draining
        self.claimer = Claimer(
            *(engine, registry, Options(), self.slots),
            worker="worker",
            taker=self,
            suspects=Suspects(),
            lifetime=lifetime,
        )

    def take(self, tasks: Sequence[Task]) -> None:
        self.taken.extend(tasks)

    def give_back(self, tasks: Sequence[Task]) -> None:
        self.given_back.extend(tasks)

    async def claimed(self) -> None:
        """Return when what claims ahead has done so."""
        await self.claimer.ahead.ended()

    async def claimed_by_free_slots(self, tasks: int) -> None:
        """Run the claims that wait for free slots until they have found as many tasks, and then nothing."""
        before = len(self.taken)
        claiming = asyncio.create_task(self.claimer.run())
        async with asyncio.timeout(TIMEOUT):
            while len(self.taken) < before + tasks or self.claimer.ahead.waits_for_slots:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.005)
            self.draining.set()
            await claiming
        self.draining.clear()


async def given_back_to(engine: SQLiteEngine, worker: Worker) -> None:
    """Store that the worker gave tasks back, as its owner does."""
    retry = Retry(0)
    released = [
        settle(one, Released(begun=False), retry, worker="worker", now=datetime.now(UTC), random=0.0)
        for one in worker.given_back
    ]
    assert await engine.finish(released) == []


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SQLiteEngine]:
    monkeypatch.setattr(runtime, "POLL", timedelta(hours=1))  # nothing is found by chance
    async with SQLiteEngine(tmp_path / "tasks.db") as engine:
        yield engine


def new(**fields: Any) -> NewTask:
    id = task_id(datetime.now(UTC), os.urandom(10))
    return NewTask(**{"id": id, "name": greet.name, "arguments": "{}"} | fields)


async def test_no_more_is_claimed_than_will_begin_in_a_moment(engine: SQLiteEngine) -> None:
    await engine.enqueue([new() for _ in range(20)])
    worker = Worker(engine, slots=5, ended=3)
    for _ in range(50):
        worker.claimer.ahead.expect(1)
    await asyncio.sleep(0)
    for _ in range(50):  # the first claim is under way
        worker.claimer.ahead.expect(1)
    await worker.claimed()
    assert len(worker.taken) == 3


async def test_what_is_queued_in_the_same_turn_is_among_it(engine: SQLiteEngine) -> None:
    held = await engine.enqueue([new(held=True)])
    worker = Worker(engine, slots=5, ended=3)
    worker.claimer.ahead.expect(1)
    await engine.publish([(one.lease, None) for one in held])
    await worker.claimed()
    assert [one.id for one in worker.taken] == [one.id for one in held]


async def test_while_nothing_ends_nothing_is_claimed_ahead(engine: SQLiteEngine) -> None:
    await engine.enqueue([new()])
    worker = Worker(engine, slots=5, ended=0)
    worker.claimer.ahead.expect(1)
    await worker.claimed()
    assert worker.taken == []


async def test_a_call_that_would_rather_fail_goes_back_and_the_next_is_left(engine: SQLiteEngine) -> None:
    await engine.enqueue([new(rerun_after_crash=False) for _ in range(4)])
    worker = Worker(engine, slots=5, ended=9)
    worker.claimer.ahead.expect(1)
    await worker.claimed()
    assert worker.given_back == worker.taken
    assert len(worker.taken) == 2
    worker.claimer.ahead.expect(1)
    await worker.claimed()
    assert len(worker.taken) == 2


async def test_a_function_is_claimed_ahead_again_when_its_call_that_would_rather_fail_was_claimed(
    engine: SQLiteEngine,
) -> None:
    await engine.enqueue([new(rerun_after_crash=False)])
    worker = Worker(engine, slots=5, ended=9)
    worker.claimer.ahead.expect(1)
    await worker.claimed()
    await given_back_to(engine, worker)
    await worker.claimed_by_free_slots(1)
    await engine.enqueue([new()])
    worker.claimer.ahead.expect(1)
    await worker.claimed()
    assert [one.rerun_after_crash for one in worker.taken] == [False, False, True]


async def test_while_the_queue_is_never_empty_a_cancelled_call_keeps_no_function_from_being_claimed_ahead(
    engine: SQLiteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_ahead, "LEFT_FOR", 0.2)
    [one] = await engine.enqueue([new(rerun_after_crash=False)])
    worker = Worker(engine, slots=5, ended=9)
    worker.claimer.ahead.expect(1)
    await worker.claimed()
    assert worker.claimer.ahead.waits_for_slots
    await given_back_to(engine, worker)
    await engine.cancel([one.id], "not wanted")
    await engine.enqueue([new()])
    async with asyncio.timeout(TIMEOUT):
        while worker.claimer.ahead.waits_for_slots:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)
    worker.claimer.ahead.expect(1)
    await worker.claimed()
    assert [one.rerun_after_crash for one in worker.taken] == [False, True]


async def test_a_call_that_another_worker_took_keeps_no_function_from_being_claimed_ahead(engine: SQLiteEngine) -> None:
    await engine.enqueue([new(rerun_after_crash=False)])
    worker = Worker(engine, slots=5, ended=9)
    worker.claimer.ahead.expect(1)
    await worker.claimed()
    await given_back_to(engine, worker)
    await engine.claim(Claim(worker="another", limit=1, lease=timedelta(seconds=30), names=registry.names))
    await worker.claimed_by_free_slots(0)
    await engine.enqueue([new()])
    worker.claimer.ahead.expect(1)
    await worker.claimed()
    assert [one.rerun_after_crash for one in worker.taken] == [False, True]


async def test_no_suspect_is_claimed_ahead(engine: SQLiteEngine) -> None:
    await engine.enqueue([new()])
    short = timedelta(microseconds=1)
    [lost] = await engine.claim(Claim(worker="dead", limit=1, lease=short, names=registry.names))
    await engine.finish([lose(lost, now=datetime.now(UTC))])
    assert [one.suspect for one in await engine.find(Query())] == [True]
    worker = Worker(engine, slots=5, ended=3)
    worker.claimer.ahead.expect(1)
    await worker.claimed()
    assert worker.taken == []


async def test_a_worker_that_drains_claims_nothing_ahead(engine: SQLiteEngine) -> None:
    await engine.enqueue([new()])
    worker = Worker(engine, slots=5, ended=3)
    worker.claimer.ahead.expect(1)
    worker.draining.set()
    await worker.claimed()
    worker.claimer.ahead.expect(1)
    await worker.claimed()
    assert worker.taken == []


async def test_a_worker_that_drains_waits_for_what_is_being_claimed(engine: SQLiteEngine, tmp_path: Path) -> None:
    await engine.enqueue([new()])
    worker = Worker(engine, slots=5, ended=3)
    with closing(sqlite3.connect(tmp_path / "tasks.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        worker.claimer.ahead.expect(1)
        await asyncio.sleep(0)
        worker.draining.set()
        ended = asyncio.create_task(worker.claimer.run())
        await asyncio.sleep(0.02)
        assert not ended.done()
        other.execute("ROLLBACK")
    async with asyncio.timeout(TIMEOUT):
        await ended
    assert len(worker.taken) == 1


async def test_what_a_claim_ahead_leaves_is_claimed_at_once(engine: SQLiteEngine) -> None:
    """An engine tells once of what is queued, and the claim ahead is the first to ask, but takes only some of it."""
    worker = Worker(engine, slots=5, ended=9)
    async with asyncio.timeout(TIMEOUT):
        claiming = asyncio.create_task(worker.claimer.run())
        while not worker.slots._reserved:  # noqa: ASYNC110  # its first claim, which will find nothing
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # it is handed in
        time.sleep(0.03)  # noqa: ASYNC251  # and answered, but the event loop is busy
        later = FunctionOperation(partial(storing.enqueue_or_raise, tasks=[new(name=greet_alone.name, limit_key="*")]))
        assert engine._opened is not None
        engine._opened.writer.submit([later])
        time.sleep(0.03)  # noqa: ASYNC251  # the engine has told of it
        worker.claimer.ahead.expect(1)
        while not worker.taken:  # noqa: ASYNC110  # what a list is given sets no event
            await asyncio.sleep(0.005)
        worker.draining.set()
        await claiming
    assert [one.state for one in worker.taken] == [State.RUNNING]


async def test_a_claim_whose_caller_was_cancelled_before_it_began_takes_nothing(engine: SQLiteEngine) -> None:
    """Its operation waits for the same commit as one that queues a task, and comes after it."""
    worker = Worker(engine, slots=5, ended=0)
    claiming = asyncio.create_task(engine.claim(worker.claimer.claim(1)))
    await asyncio.sleep(0)
    claiming.cancel()
    [queued] = await engine.enqueue([new()])
    [stored] = await engine.get([queued.id])
    assert (stored.state, stored.attempt, stored.failures) == (State.QUEUED, 0, ())
