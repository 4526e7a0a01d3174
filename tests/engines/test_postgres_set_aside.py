"""Rows of a PostgreSQL database that this version cannot read: they wait, and all others go on."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from postgres_calls import LEASE, claim, end, new

from afterwards.core.lifecycle import Raised
from afterwards.core.task import FailureKind, NewTask, State, Task
from afterwards.engine import Query
from afterwards.engines.postgres import PostgresEngine
from afterwards.testing.clock import FakeClock

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres_plans")]

FAR = 2**60
"""An instant that no datetime can hold."""


@pytest.fixture
async def engine(postgres_url: str) -> AsyncIterator[PostgresEngine]:
    async with PostgresEngine(postgres_url) as engine:
        yield engine


@pytest.fixture
def damage(postgres_url: str) -> Any:
    def damage(task: NewTask | Task, **columns: Any) -> None:
        with psycopg.connect(postgres_url) as connection:
            for column, value in columns.items():
                statement = f"UPDATE afterwards_tasks SET {column} = %s WHERE id = %s"
                assert connection.execute(statement, (value, task.id)).rowcount == 1  # type: ignore[call-overload]

    return damage


async def test_a_claim_sets_aside_what_it_cannot_read_and_takes_the_others(
    engine: PostgresEngine, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = new(priority=5), [new() for _ in range(3)]
    await engine.enqueue([bad, *good])
    damage(bad, created_at=FAR, worker="before", progress="{}")
    assert [task.id for task in await engine.claim(claim(3))] == [one.id for one in good]
    [aside] = await engine.find(Query(set_aside=True))
    assert (aside.id, aside.state, aside.attempt, aside.worker) == (bad.id, State.QUEUED, 0, "before")
    assert aside.unreadable == aside.set_aside == "an instant or a span in it is out of range"
    assert bad.id in caplog.text
    damage(bad, created_at=1)
    [task] = await engine.claim(claim(ids=frozenset({bad.id})))
    assert (task.id, task.attempt) == (bad.id, 1)


async def test_limited_tasks_and_those_claimed_by_id_are_set_aside_alike(engine: PostgresEngine, damage: Any) -> None:
    limited, by_id, good = new(limit_key="ada"), new(), new(limit_key="ada")
    await engine.enqueue([limited, by_id, good])
    for one in (limited, by_id):
        damage(one, created_at=FAR)
    assert await engine.claim(claim(ids=frozenset({by_id.id}))) == []
    assert [task.id for task in await engine.claim(claim())] == [good.id]
    assert {task.id for task in await engine.find(Query(set_aside=True))} == {limited.id, by_id.id}


async def test_a_state_of_a_later_version_is_left_alone(engine: PostgresEngine, damage: Any) -> None:
    await engine.enqueue([bad := new(), good := new()])
    damage(bad, state="hibernating")
    assert [task.id for task in await engine.claim(claim())] == [good.id]
    [task] = await engine.get([bad.id])
    assert task.unreadable == "this version does not know its state 'hibernating'"


async def test_what_cannot_be_read_can_be_cancelled_with_those_behind_it(engine: PostgresEngine, damage: Any) -> None:
    await engine.enqueue([bad := new(), behind := new(after=bad.id)])
    damage(bad, created_at=FAR)
    await engine.claim(claim())
    await engine.cancel([bad.id], "not wanted")
    assert [task.state for task in await engine.get([bad.id, behind.id])] == [State.CANCELLED] * 2


async def test_a_waiting_task_that_cannot_be_read_is_set_aside(engine: PostgresEngine, damage: Any) -> None:
    await engine.enqueue([first := new(), bad := new(after=first.id), good := new(after=first.id)])
    damage(bad, expires_at=FAR)
    await engine.finish([end(task) for task in await engine.claim(claim())])
    assert [task.id for task in await engine.claim(claim())] == [good.id]
    assert [task.id for task in await engine.find(Query(set_aside=True))] == [bad.id]


async def test_a_lost_task_that_cannot_be_read_is_set_aside(postgres_url: str, damage: Any) -> None:
    clock = FakeClock()
    async with PostgresEngine(postgres_url, clock=clock) as engine:
        await engine.enqueue([new(), new()])
        bad, good = await engine.claim(claim())
        damage(bad, created_at=FAR)
        clock.advance(LEASE)
        assert [task.id for task in await engine.expired(10)] == [good.id]
        assert [task.id for task in await engine.find(Query(set_aside=True))] == [bad.id]


async def test_tasks_that_stand_in_no_order_are_found_by_prune(engine: PostgresEngine, damage: Any) -> None:
    await engine.enqueue([never := new(wait=LEASE), late := new(wait=LEASE), orphan := new()])
    damage(never, run_at=None)
    damage(late, run_at=FAR)
    damage(orphan, state="waiting")
    await engine.prune(10)
    assert {task.id for task in await engine.find(Query(set_aside=True))} == {never.id, late.id, orphan.id}


async def test_a_failure_and_a_progress_that_cannot_be_read_are_described(
    engine: PostgresEngine, damage: Any, postgres_url: str
) -> None:
    await engine.enqueue([new()])
    [task] = await engine.claim(claim())
    await engine.finish([end(task, Raised(error=ValueError("no")))])
    damage(task, progress="{")
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE afterwards_failures SET kind = 'bored'")
    [read] = await engine.get([task.id])
    assert read.unreadable is None
    assert read.progress and read.progress.note == "the stored progress cannot be read"
    assert read.failures[0].kind is FailureKind.UNKNOWN
    assert "this version cannot read this failure (kind 'bored'): no" in read.failures[0].message


async def test_text_that_no_database_accepts_refuses_only_its_own_call(engine: PostgresEngine) -> None:
    good = new()
    bad = new(origin="POST /\x00")
    with pytest.raises(Exception, match="cannot be stored"):
        await engine.enqueue([bad])
    await engine.enqueue([good])
    assert [task.id for task in await engine.find(Query())] == [good.id]
    assert (await engine.stats()).oldest is not None and (await engine.stats()).oldest >= timedelta()  # type: ignore[operator]
