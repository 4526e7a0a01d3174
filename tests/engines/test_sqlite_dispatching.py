"""What a file remembers of dispatches: beside versions that do not know of them, damaged, and at what cost."""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from afterwards.core.limits import Limit, Rate
from afterwards.core.task import Lease, NewTask, task_id
from afterwards.engine import Claim, Dispatched
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.testing.clock import START, FakeClock

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)
TIMEOUT = 30.0
AHEAD = Claim(worker="dispatcher", limit=100, lease=MINUTE, names=frozenset({"greet"}))
FLEET = replace(AHEAD, worker="fleet")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def engine(path: Path, clock: FakeClock) -> AsyncIterator[SQLiteEngine]:
    async with SQLiteEngine(path, clock=clock) as engine:
        yield engine


def new(**fields: Any) -> NewTask:
    return NewTask(**{"id": task_id(START, os.urandom(10)), "name": "greet", "arguments": "{}"} | fields)


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, timeout=20)) as connection, connection:
        connection.execute(statement)


def marks(path: Path) -> int:
    with closing(sqlite3.connect(path, timeout=20)) as connection:
        [found] = connection.execute("SELECT count(*) FROM afterwards_dispatches").fetchone()
        return int(found)


def sent(found: Dispatched) -> list[Lease]:
    return [one.lease for one in found.tasks]


async def traced(engine: SQLiteEngine) -> list[str]:
    """The statements that the writer executes from now on."""
    asked = list[str]()
    assert engine._opened is not None
    await engine._opened.writer.call(
        lambda connection: cast(sqlite3.Connection, connection).set_trace_callback(asked.append)
    )
    asked.clear()  # the end of this transaction
    return asked


async def test_a_dispatch_that_finds_nothing_to_send_opens_no_transaction(engine: SQLiteEngine) -> None:
    limits = {"rated": Limit(rate=Rate(1, MINUTE))}
    ahead = replace(AHEAD, names=frozenset({"greet", "rated"}), limits=limits)
    await engine.enqueue([new(), new(name="rated", limit_key="*"), new(name="unknown")])
    assert len((await engine.dispatch(ahead, again=MINUTE)).tasks) == 2
    asked = await traced(engine)
    assert await engine.dispatch(ahead, again=MINUTE) == ([], False)
    assert await engine.dispatch(replace(ahead, limit=1), again=MINUTE) == ([], True)
    assert {statement.split()[0] for statement in asked} == {"SELECT"}


async def test_a_dispatch_finds_out_when_a_rate_that_another_process_used_up_has_room(
    engine: SQLiteEngine, path: Path, clock: FakeClock
) -> None:
    ahead = replace(AHEAD, limits={"greet": Limit(rate=Rate(1, MINUTE))})
    await engine.enqueue([new(limit_key="*"), new(limit_key="*")])
    async with SQLiteEngine(path, clock=clock) as other:
        await other.claim(replace(ahead, limit=1))
    assert await engine.dispatch(ahead, again=MINUTE) == ([], False)
    assert engine._opened is not None and engine._opened.writer.room_at == START + MINUTE
    clock.advance(MINUTE)
    async with asyncio.timeout(TIMEOUT):
        await engine.wait(timedelta(hours=1))
    assert len((await engine.dispatch(ahead, again=MINUTE)).tasks) == 1


async def test_what_a_caller_that_was_cancelled_would_have_sent_is_sent_by_the_next(
    engine: SQLiteEngine, path: Path
) -> None:
    [task] = await engine.enqueue([new()])
    call = asyncio.create_task(engine.dispatch(AHEAD, again=MINUTE))
    await asyncio.sleep(0)  # it asks
    await asyncio.sleep(0)  # the writer is told
    deadline = time.monotonic() + TIMEOUT
    while not marks(path):  # the event loop stands still, so that the answer does not arrive
        assert time.monotonic() < deadline
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    found = list[Lease]()
    async with asyncio.timeout(TIMEOUT):
        while not found:
            found = sent(await engine.dispatch(AHEAD, again=MINUTE))
    assert found == [Lease(task.id, 1)]


@pytest.mark.parametrize(
    "damage",
    [
        *(
            "at = 'then'",
            "at = 9000000000000000000",
            "at = -9000000000000000000",
            "at = 253402214400000000",
            "at = 1.5",
        ),
        *(
            "sent = 'often'",
            "sent = 9223372036854775807",
            "sent = 0",
            "sent = x'ff'",
            "attempt = 'first'",
            "task = 'x'",
        ),
    ],
)
async def test_a_task_whose_mark_cannot_be_read_is_sent_again(engine: SQLiteEngine, path: Path, damage: str) -> None:
    [one, two] = await engine.enqueue([new(), new()])
    await engine.dispatch(replace(AHEAD, limit=1), again=MINUTE)
    change(path, f"UPDATE afterwards_dispatches SET {damage}")
    assert sent(await engine.dispatch(AHEAD, again=timedelta(days=1))) == [Lease(one.id, 1), Lease(two.id, 1)]
    assert await engine.dispatch(AHEAD, again=timedelta(days=1)) == ([], False)


@pytest.mark.parametrize("attempt", [2**63 - 1, 2**63 - 2, -1])
async def test_a_task_with_an_impossible_number_of_attempts_keeps_no_other_back(
    engine: SQLiteEngine, path: Path, attempt: int
) -> None:
    [odd, other] = await engine.enqueue([new(), new()])
    change(path, f"UPDATE afterwards_tasks SET attempt = {attempt} WHERE seq = 1")
    assert Lease(other.id, 1) in sent(await engine.dispatch(AHEAD, again=MINUTE))
    assert await engine.dispatch(AHEAD, again=MINUTE) == ([], False)
    [found] = await engine.get([odd.id])
    assert (found.set_aside is None) == (attempt < 2**63 - 1)


async def test_what_the_version_before_claims_is_refused_when_it_arrives(
    engine: SQLiteEngine, path: Path, clock: FakeClock
) -> None:
    await engine.enqueue([new()])
    [lease] = sent(await engine.dispatch(AHEAD, again=MINUTE))
    [taken] = await engine.claim(FLEET)  # as the version before does, without a word about dispatches
    assert (taken.lease, marks(path)) == (lease, 1)
    assert await engine.claim(replace(FLEET, starts=frozenset({lease}))) == []
    assert marks(path) == 0


async def test_a_mark_that_says_nothing_any_more_is_deleted_after_a_day(
    engine: SQLiteEngine, path: Path, clock: FakeClock
) -> None:
    await engine.enqueue([new()])
    await engine.dispatch(AHEAD, again=MINUTE)
    await engine.claim(FLEET)
    clock.advance(timedelta(days=1) - timedelta(microseconds=1))
    await engine.prune(10)
    assert marks(path) == 1
    clock.advance(timedelta(microseconds=1))
    await engine.prune(10)
    assert marks(path) == 0


async def test_a_copy_has_what_is_on_its_way(engine: SQLiteEngine, path: Path, clock: FakeClock) -> None:
    await engine.enqueue([new()])
    await engine.dispatch(AHEAD, again=MINUTE)
    copy = path.with_name("copy.db")
    await engine.backup(copy)
    async with SQLiteEngine(copy, clock=clock) as copied:
        assert await copied.dispatch(AHEAD, again=MINUTE) == ([], False)


async def test_a_file_of_the_version_before_gets_a_memory_of_dispatches(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        await engine.enqueue([new()])
    change(path, "DROP TABLE afterwards_dispatches")
    change(path, "UPDATE afterwards_schema SET version = 1007")
    async with SQLiteEngine(path) as engine:
        assert len((await engine.dispatch(AHEAD, again=MINUTE)).tasks) == 1
        assert await engine.dispatch(AHEAD, again=MINUTE) == ([], False)
