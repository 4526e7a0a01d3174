"""How many statements a list takes: as many for a hundred as for a few, not one for each."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from afterwards.core.lifecycle import HOLD
from afterwards.core.limits import Limit, Rate
from afterwards.core.progress import Progress
from afterwards.core.retry import Retry
from afterwards.core.routing import LiveWorker
from afterwards.core.settling import Raised, Released, Snoozed, Succeeded, lose_all, settle
from afterwards.core.task import LOGGED_ATTEMPTS, Failure, FailureKind, LogLine, NewTask, State, Task, task_id
from afterwards.engine import Chunk, Claim, Engine, Fire, Heartbeat, Paused, Query
from afterwards.engines.memory import MemoryEngine
from afterwards.engines.postgres import PostgresEngine
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.engines.sqlite.io import schema
from afterwards.engines.sqlite.io.connection import OwnConnection
from afterwards.testing.clock import START, FakeClock

pytestmark = pytest.mark.anyio

MANY = 100
MOST = 25
"""Statements that a call may take for so many, with those of its transaction; most take ten."""
LEASE = timedelta(seconds=30)
NAMES = frozenset({"greet"})
FAILURE = Failure(attempt=1, at=START, worker="w", kind=FailureKind.RAISED, message="no")


class Counted:
    """The number of statements that a database was asked to execute."""

    number = 0


class CountingSQLite(OwnConnection):
    """Counts each row of ``executemany`` too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.last = ""
        self.set_trace_callback(self.count)

    def count(self, statement: str) -> None:
        Counted.number += statement != self.last  # the steps of its triggers are reported as the statement once more
        self.last = statement


class CountingPostgres(psycopg.AsyncConnection[Any]):
    async def execute(self, *args: Any, **kwargs: Any) -> psycopg.AsyncCursor[Any]:
        Counted.number += 1
        return await super().execute(*args, **kwargs)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres_statements"))])
async def engine(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Engine]:
    opened: SQLiteEngine | PostgresEngine
    if request.param == "sqlite":
        monkeypatch.setattr(schema, "OwnConnection", CountingSQLite)
        opened = SQLiteEngine(tmp_path / "tasks.db", clock=clock)
    else:
        monkeypatch.setattr(psycopg, "AsyncConnection", CountingPostgres)
        opened = PostgresEngine(request.getfixturevalue("postgres_url"), clock=clock)
    async with opened as engine:
        yield engine


@contextmanager
def few(most: int = MOST) -> Iterator[None]:
    before = Counted.number
    yield
    taken = Counted.number - before
    assert 1 <= taken <= most, f"{taken} statements for {MANY}"


def new(**fields: Any) -> NewTask:
    return NewTask(**{"id": task_id(START, os.urandom(10)), "name": "greet", "arguments": "{}"} | fields)


def several(**fields: Any) -> list[NewTask]:
    return [new(**fields) for _ in range(MANY)]


def ids(tasks: list[Task] | list[NewTask]) -> list[str]:
    return [task.id for task in tasks]


async def taken(engine: Engine, **fields: Any) -> list[Task]:
    await engine.enqueue(several(**fields))
    return await engine.claim(Claim(worker="w", limit=MANY, lease=LEASE, names=NAMES))


async def followed(engine: Engine) -> tuple[list[Task], list[NewTask]]:
    """Tasks that run, and one that waits behind each."""
    running = await taken(engine)
    behind = [new(after=task.id) for task in running]
    await engine.enqueue(behind)
    return running, behind


async def test_tasks_with_keys_are_stored(engine: Engine) -> None:
    stored = [new(unique_key=f"u{n}", idempotency_key=f"i{n}", max_queued=1000) for n in range(MANY)]
    with few():
        await engine.enqueue(stored)
    again = [new(unique_key=f"u{n}", queue=f"q{n}", max_queued=1000) for n in range(MANY)]
    with few():
        assert ids(await engine.enqueue(again)) == ids(stored)
    with few():
        await engine.refuse_full([new(idempotency_key=f"i{n}", queue=f"q{n}", max_queued=1000) for n in range(MANY)])
    with few():
        assert ids(await engine.get(ids(again))) == ids(stored)


async def test_tasks_behind_others_are_stored(engine: Engine) -> None:
    before = several()
    await engine.enqueue(before)
    with few():
        await engine.enqueue([new(after=task.id) for task in before])
    with few():
        await engine.enqueue(several(failure=FAILURE))


async def test_tasks_are_published(engine: Engine) -> None:
    held = await engine.enqueue(several(held=True))
    with few():
        await engine.publish([(task.lease, HOLD) for task in held])
    with few():
        await engine.publish([(task.lease, START + HOLD * number) for number, task in enumerate(held)])
    with few():
        await engine.publish([(task.lease, None) for task in held])


async def test_tasks_are_claimed(engine: Engine) -> None:
    stored = several()
    await engine.enqueue(stored)
    with few():
        assert len(await engine.claim(Claim(worker="w", limit=MANY, lease=LEASE, names=NAMES))) == MANY
    limits = {"greet": Limit(max_concurrency=1000, rate=Rate(1000, LEASE))}
    await engine.enqueue(several(limit_key="ada"))
    with few():
        claim = Claim(worker="w", limit=MANY, lease=LEASE, names=NAMES, limits=limits)
        assert len(await engine.claim(claim)) == MANY
    by_id = several()
    await engine.enqueue(by_id)
    with few():
        claim = Claim(worker="w", limit=MANY, lease=LEASE, names=NAMES, ids=frozenset(ids(by_id)))
        assert len(await engine.claim(claim)) == MANY


async def test_tasks_are_dispatched_and_arrive(engine: Engine) -> None:
    ahead = Claim(worker="d", limit=MANY, lease=LEASE, names=NAMES, limits={"greet": Limit(rate=Rate(1000, LEASE))})
    await engine.enqueue([*several(limit_key="ada"), *several()])
    with few(2 * MOST):  # SQLite looks first without a transaction
        sent = (await engine.dispatch(ahead, again=LEASE)).tasks
    with few():
        assert await engine.dispatch(ahead, again=LEASE) == ([], True)
    starts = frozenset(one.lease for one in sent)
    with few():
        assert len(await engine.claim(replace(ahead, worker="w", starts=starts))) == len(sent) == MANY
    with few():
        assert await engine.claim(replace(ahead, worker="w", starts=starts)) == []


async def test_what_has_expired_is_cancelled(engine: Engine, clock: FakeClock) -> None:
    stored = several(expires=LEASE)
    await engine.enqueue([*stored, *(new(after=task.id) for task in stored)])
    clock.advance(LEASE)
    with few():
        assert await engine.claim(Claim(worker="w", limit=MANY, lease=LEASE, names=NAMES)) == []
    assert {task.state for task in await engine.get(ids(stored))} == {"cancelled"}


async def test_leases_are_renewed(engine: Engine) -> None:
    running = await taken(engine)
    beats = [Heartbeat(task.lease, Progress(done=number)) for number, task in enumerate(running)]
    with few():
        assert len(await engine.heartbeat(beats, lease=LEASE)) == MANY


@pytest.mark.parametrize("outcome", [Succeeded(), Succeeded('"yes"'), Raised(error=ValueError("no")), Released()])
async def test_attempts_end(engine: Engine, outcome: Any) -> None:
    running, behind = await followed(engine)
    settled = [settle(task, outcome, Retry(0), worker="w", now=START, random=0.5) for task in running]
    with few():
        assert await engine.finish(settled) == []
    if isinstance(outcome, Raised):
        assert {task.state for task in await engine.get(ids(behind))} == {"cancelled"}
    with few():
        assert len(await engine.finish(settled)) == MANY


async def test_attempts_end_that_are_retried_each_after_a_time_of_its_own(engine: Engine) -> None:
    raised = Raised(error=ValueError("no"))
    for number in range(20):  # more failures than are kept
        running = await taken(engine) if number == 0 else await engine.claim(_everything())
        settled = [
            settle(task, raised, Retry(99, wait=0), worker="w", now=START, random=place / MANY)
            for place, task in enumerate(running)
        ]
        with few():
            assert await engine.finish(settled) == []
    failures = {(len(task.failures), task.failures_left_out) for task in await engine.get(ids(running))}
    assert failures == {(15, 5)}


async def test_attempts_end_that_logged_something(engine: Engine) -> None:
    running = await taken(engine)
    for _ in range(LOGGED_ATTEMPTS + 2):  # more than are kept
        with few():
            await engine.finish([logged(task, Released()) for task in running])
        running = await engine.claim(_everything())
    with few():
        await engine.finish([logged(task, Succeeded()) for task in running])
    with few():
        found = await engine.get(ids(running))
    assert {len(task.logs) for task in found} == {LOGGED_ATTEMPTS}


def logged(task: Task, outcome: Any) -> Any:
    line = LogLine(attempt=task.attempt, at=START, level="INFO", logger="shop", message="a line")
    return replace(settle(task, outcome, Retry(0), worker="w", now=START, random=0.5), logs=(line,))


async def test_attempts_end_late(engine: Engine, clock: FakeClock) -> None:
    running = await taken(engine)
    clock.advance(LEASE)
    await engine.finish(lose_all(await engine.expired(MANY), now=clock()))
    late = [settle(one, Succeeded(), Retry(0), worker="w", now=START, random=0.5) for one in running]
    with few():
        assert len(await engine.finish(late)) == MANY
    assert {len(task.failures) for task in await engine.get(ids(running))} == {2}


def _everything() -> Claim:
    return Claim(worker="w", limit=MANY, lease=LEASE, names=NAMES)


async def test_attempts_end_that_leave_a_task_behind(engine: Engine) -> None:
    running = await taken(engine)
    snoozed = [settle(one, Snoozed(LEASE), Retry(0), worker="w", now=START, random=0.5) for one in running]
    with few():
        await engine.finish(snoozed)


async def test_lost_leases_are_taken_back(engine: Engine, clock: FakeClock) -> None:
    await taken(engine)
    clock.advance(LEASE)
    with few():
        lost = await engine.expired(MANY)
    with few():
        assert await engine.finish(lose_all(lost, now=clock())) == []


async def test_tasks_are_cancelled_with_those_behind_them(engine: Engine) -> None:
    stored = several()
    behind = [new(after=task.id) for task in stored]
    await engine.enqueue([*stored, *behind])
    with few():
        assert len(await engine.cancel(ids(stored), "no")) == MANY
    assert {task.state for task in await engine.get(ids(behind))} == {"cancelled"}


async def test_a_chain_is_cancelled(engine: Engine) -> None:
    stored = [new()]
    while len(stored) < MANY:
        stored.append(new(after=stored[-1].id))
    await engine.enqueue(stored)
    with few():
        await engine.cancel([stored[0].id], "no")
    with few():
        assert ids(await engine.requeue(ids(stored))) == [stored[0].id]
    assert [task.state for task in await engine.get(ids(stored))] == ["queued"] + ["waiting"] * (MANY - 1)


async def test_tasks_are_requeued_with_those_behind_them(engine: Engine) -> None:
    stored = [new(unique_key=f"u{n}") for n in range(MANY)]
    behind = [new(after=task.id) for task in stored]
    await engine.enqueue([*stored, *behind])
    await engine.cancel(ids(stored), "no")
    with few():
        assert len(await engine.requeue(ids(stored))) == MANY
    assert {task.state for task in await engine.get(ids(behind))} == {"waiting"}


async def test_tasks_are_started_by_hand(engine: Engine) -> None:
    stored = several(wait=LEASE)
    await engine.enqueue(stored)
    with few():
        assert ids(await engine.start_now(ids(stored))) == ids(stored)


async def test_tasks_are_deleted_with_their_files(engine: Engine) -> None:
    stored = several()
    chunks = [Chunk(file=task_id(START, os.urandom(10)), task=task.id, number=0, content=b"a") for task in stored]
    await engine.write_chunks(chunks)
    await engine.enqueue(stored)
    await engine.cancel(ids(stored), "no")
    with few(40):  # in several transactions
        assert len(await engine.delete(ids(stored))) == MANY


async def test_tasks_are_listed_and_counted(engine: Engine) -> None:
    running = await taken(engine)
    settled = [
        settle(one, Raised(error=ValueError("no")), Retry(0), worker="w", now=START, random=0) for one in running
    ]
    await engine.finish(settled)
    query = Query(states=frozenset(State), text="valueerror", since=START, limit=1000)
    with few():
        assert len(await engine.find(query)) == MANY
    with few():
        assert await engine.count(query) == MANY
    with few():
        assert [tally.ends.failed for tally in await engine.tallies(LEASE, timedelta(minutes=1))] == [MANY]


async def test_tasks_are_pruned_with_their_files(engine: Engine, clock: FakeClock) -> None:
    running = await taken(engine, retention=timedelta())
    chunks = [Chunk(file=task_id(START, os.urandom(10)), task=task.id, number=0, content=b"a") for task in running]
    with few():
        await engine.write_chunks(chunks)
    await engine.finish([settle(one, Succeeded(), Retry(0), worker="w", now=START, random=0.5) for one in running])
    with few(40):  # in several transactions, and nine looks for what is in no index
        assert await engine.prune(MANY) == MANY


async def test_schedules_are_kept_and_fired(engine: Engine) -> None:
    names = [f"f{n}" for n in range(MANY)]
    with few():
        await engine.register_schedules(dict.fromkeys(names, "a"))
    paused = Paused(schedules=frozenset(names), queues=frozenset(names), names=frozenset(names))
    for change in (engine.pause, engine.resume):
        with few():
            await change(paused)
    with few():
        assert len(await engine.fire([Fire(name, START + LEASE, new()) for name in names])) == MANY


async def test_workers_are_announced(engine: Engine) -> None:
    workers = [LiveWorker(id=f"w{n}", host="h", pid="1", started_at=START, names=NAMES) for n in range(MANY)]
    with few():
        await engine.announce(workers)


async def test_a_clock_that_was_put_back_is_put_right(engine: Engine, clock: FakeClock) -> None:
    ended = several()
    await engine.enqueue(ended)
    await engine.cancel([task.id for task in ended], "not wanted")
    await taken(engine)
    clock.advance(-timedelta(days=1))
    with few():
        assert await engine.put_right(LEASE)


async def test_records_are_moved(engine: Engine, clock: FakeClock) -> None:
    tasks = await taken(engine)
    raised = Raised(error=ValueError("no"))
    await engine.finish([settle(task, raised, Retry(0), worker="w", now=START, random=0.5) for task in tasks])
    await engine.enqueue([new(unique_key=f"u{n}", after=task.id) for n, task in enumerate(tasks)])
    await engine.enqueue([new(unique_key=f"u{n}", idempotency_key=f"i{n}") for n in range(MANY)])
    await engine.write_chunks([Chunk(file=new().id, task=task.id, number=0, content=b"x") for task in tasks])
    await engine.register_schedules({f"n{n}": "every 1:00:00" for n in range(MANY)})
    other, done = MemoryEngine(clock=clock), None
    while True:
        with few():
            done = await engine.hand_over("there", limit=MANY, done=done)
        if done is None:
            break
        await other.take_over(done)
    while done := await other.hand_over("here", limit=MANY, done=done):
        with few(2 * MOST):  # SQLite: a task has more columns than most statements have values for
            await engine.take_over(done)
