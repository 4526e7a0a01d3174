"""Rows that this version cannot read: each is set aside, and all others go on."""

import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from afterwards.core.limits import Limit, Rate
from afterwards.core.retry import Retry
from afterwards.core.routing import LiveWorker
from afterwards.core.settling import Raised, lose, settle
from afterwards.core.task import FailureKind, NewTask, State, Task, task_id
from afterwards.engine import Claim, Fire, Paused, Query
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.testing.clock import START, FakeClock

pytestmark = pytest.mark.anyio

LEASE = timedelta(seconds=30)
MINUTE = timedelta(minutes=1)
NAMES = frozenset({"greet", "thank"})

DAMAGES = (
    """more = '{"new_field": 1}'""",
    """more = '{"state": "queued"}'""",
    """more = '{"rerun_after_crash": "no"}'""",
    """more = '{"context": '""",
    "more = '[]'",
    f"more = '{'[' * 100_000}'",
    "priority = 'high'",
    "priority = 1.5",
    "created_at = 9000000000000000000",
    "created_at = 'yesterday'",
    "attempt = 'first'",
    "retention = 'long'",
    "overrides = x'ff'",
    "arguments = x'7b7d'",
    "arguments = CAST(x'ff' AS TEXT)",
    "origin = CAST(x'c3' AS TEXT)",
    "worker = 1.5, started_at = 'then', origin = x'00'",
    "expires_at = 9000000000000000000",
    "id = x'00'",
    "id = 'an id'",
    "failures_left_out = 'many'",
    "suspect = 7",
    "suspect = -1",
    "suspect = 'maybe'",
    "name = x'ff'",
    "name = CAST(x'ff' AS TEXT)",
    "queue = x'ff'",
    "queue = CAST(x'61ff' AS TEXT)",
    "limit_key = x'ff'",
    "limit_key = CAST(x'ff' AS TEXT)",
    "state = 'scheduled', run_at = NULL",
    "state = 'scheduled', run_at = 9000000000000000000",
    "state = 'scheduled', run_at = 'soon'",
    "state = 'scheduled', run_at = 0, more = '{'",
    "state = 'waiting', after = NULL",
    "secrets = '{}'",
    "secrets = '[1]'",
    "secrets = '['",
    "secrets = 7",
)
"""What may have happened to a queued row: a later version wrote it, or it was damaged."""


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


def claim(limit: int = 100, **fields: Any) -> Claim:
    return Claim(worker="worker", limit=limit, lease=LEASE, **{"names": NAMES} | fields)


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, timeout=20)) as connection, connection:
        connection.execute(statement)


def damage(path: Path, task: NewTask | Task, damage: str) -> None:
    change(path, f"UPDATE afterwards_tasks SET {damage} WHERE id = x'{task.id.replace('-', '')}'")


def column(path: Path, column: str, task: NewTask | Task) -> object:
    with closing(sqlite3.connect(path, timeout=20)) as connection:
        id = f"x'{task.id.replace('-', '')}'"
        [value] = connection.execute(f"SELECT {column} FROM afterwards_tasks WHERE id = {id}").fetchone()
        return value


def ids(tasks: list[Task]) -> list[str]:
    return [task.id for task in tasks]


async def claim_all(engine: SQLiteEngine, limit: int = 100) -> list[Task]:
    """What a worker takes until nothing is left for it."""
    taken: list[Task] = []
    while some := await engine.claim(claim(limit)):
        taken += some
    return taken


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_row_that_cannot_be_read_is_set_aside_and_all_others_go_on(
    engine: SQLiteEngine, path: Path, clock: FakeClock, how: str
) -> None:
    odd, *others = [new(priority=5), new(), new(name="thank"), new(queue="z"), new(wait=LEASE)]
    await engine.enqueue([odd, *others])
    damage(path, odd, how)
    clock.advance(LEASE)
    taken = await claim_all(engine, limit=2)
    assert sorted(ids(taken)) == sorted(ids(others))
    await engine.prune(10)
    assert await engine.claim(claim()) == []
    listed = await engine.find(Query())
    assert len(listed) == 5
    [shown] = [task for task in listed if task.id not in ids(others)]
    assert shown.unreadable and shown.set_aside and not shown.state.finished
    assert [task.unreadable for task in await engine.find(Query(set_aside=True))] == [shown.unreadable]
    assert sum((await engine.stats()).counts.values()) == 5
    assert await engine.unroutable(timedelta()) == []


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_row_that_cannot_be_read_is_not_dispatched_and_all_others_are(
    engine: SQLiteEngine, path: Path, clock: FakeClock, how: str
) -> None:
    odd, *others = [new(priority=5), new(), new(name="thank"), new(queue="z"), new(wait=LEASE)]
    await engine.enqueue([odd, *others])
    damage(path, odd, how)
    clock.advance(LEASE)
    sent = list[str]()
    for _ in range(5):
        found = await engine.dispatch(claim(limit=1), again=MINUTE)
        sent += [one.lease.task_id for one in found.tasks]
        await engine.claim(claim(starts=frozenset(one.lease for one in found.tasks)))
    assert sorted(sent) == sorted(task.id for task in others)
    await engine.prune(10)  # finds those that have no place in the order
    assert len(await engine.find(Query(set_aside=True))) == 1


@pytest.mark.parametrize("state", ["'paused'", "x'ff'"])
async def test_a_row_in_a_state_of_a_later_version_is_listed_and_left_alone(
    engine: SQLiteEngine, path: Path, state: str
) -> None:
    await engine.enqueue([odd := new(), other := new()])
    damage(path, odd, f"state = {state}")
    assert ids(await claim_all(engine)) == [other.id]
    await engine.stats()
    shown = (await engine.find(Query()))[1]
    assert shown.id == odd.id and shown.unreadable and shown.set_aside


async def test_many_rows_that_cannot_be_read_hide_nothing_behind_them(engine: SQLiteEngine, path: Path) -> None:
    later, last = [new(priority=9) for _ in range(50)], new()
    await engine.enqueue([*later, last])
    change(path, """UPDATE afterwards_tasks SET more = '{"new": 1}' WHERE priority = 9""")
    assert ids(await claim_all(engine, limit=1)) == [last.id]


async def test_a_row_that_cannot_be_read_is_told_once(
    engine: SQLiteEngine, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [new(), new()]
    await engine.enqueue(tasks)
    change(path, """UPDATE afterwards_tasks SET more = '{"new_field": "hunter2"}'""")
    with caplog.at_level(logging.WARNING, "afterwards"):
        for _ in range(3):
            assert await engine.claim(claim()) == []
    [said] = [record.message for record in caplog.records]
    assert said.startswith(f"task set aside: greet ({tasks[0].id}): this version does not know its new_field.")
    assert "hunter2" not in said


async def test_what_is_in_the_row_stays_and_runs_when_code_comes_that_can_read_it(
    engine: SQLiteEngine, path: Path
) -> None:
    task = new(limit_key="ada", context='{"trace": {}}')
    await engine.enqueue([task])
    before = column(path, "more", task)
    damage(path, task, """more = '{"new_field": 1}'""")
    assert await engine.claim(claim()) == []
    assert await engine.claim(claim(ids=frozenset({task.id}))) == []
    assert column(path, "more", task) == '{"new_field": 1}'
    damage(path, task, f"more = '{before}'")
    assert await engine.claim(claim()) == []  # whoever looks for it brings it back
    [taken] = await engine.claim(claim(ids=frozenset({task.id})))
    assert (taken.id, taken.attempt, taken.set_aside, taken.context) == (task.id, 1, None, task.context)


async def test_what_stands_behind_waits_and_goes_on_with_it(engine: SQLiteEngine, path: Path) -> None:
    first, odd = new(), new()
    behind, last = new(after=odd.id), new()
    await engine.enqueue([first, odd, behind, last])
    damage(path, odd, "more = '{'")
    assert ids(await claim_all(engine)) == [first.id, last.id]
    await engine.enqueue([late := new(after=odd.id)])
    assert [task.state for task in await engine.get([behind.id, late.id])] == [State.WAITING] * 2
    damage(path, odd, "more = NULL")
    [taken] = await engine.claim(claim(ids=frozenset({odd.id})))
    await engine.finish([settle(taken, RAISED, Retry(), worker="worker", now=START, random=0)])
    assert [task.state for task in await engine.get([behind.id, late.id])] == [State.CANCELLED] * 2


async def test_a_row_that_waits_for_another_is_set_aside_when_that_ends_and_follows_it_later(
    engine: SQLiteEngine, path: Path
) -> None:
    first = new()
    odd, well = new(after=first.id), new(after=first.id)
    await engine.enqueue([first, odd, well])
    damage(path, odd, """more = '{"new_field": 1}'""")
    [taken] = await engine.claim(claim())
    assert await engine.finish([settle(taken, RAISED, Retry(), worker="worker", now=START, random=0)]) == []
    assert [task.state for task in await engine.get([odd.id, well.id])] == [State.WAITING, State.CANCELLED]
    damage(path, odd, "more = NULL")
    assert await engine.claim(claim(ids=frozenset({odd.id}))) == []
    [followed] = await engine.get([odd.id])
    assert (followed.state, followed.cause, followed.set_aside) == (State.CANCELLED, first.id, None)


async def test_crashes_are_taken_back_beside_a_row_that_cannot_be_read(
    engine: SQLiteEngine, path: Path, clock: FakeClock
) -> None:
    tasks = [new() for _ in range(3)]
    await engine.enqueue(tasks)
    await engine.claim(claim())
    damage(path, tasks[0], """more = '{"rerun_after_crash": "never"}'""")
    damage(path, tasks[1], "lease_until = NULL")
    clock.advance(LEASE)
    lost = await engine.expired(10)
    assert ids(lost) == [tasks[2].id]
    assert await engine.finish([lose(task, now=clock()) for task in lost]) == []
    await engine.prune(10)
    assert ids(await engine.find(Query(set_aside=True))) == ids([tasks[1], tasks[0]])
    assert await engine.expired(10) == []
    damage(path, tasks[0], "more = NULL")
    await engine.claim(claim(limit=0, ids=frozenset({tasks[0].id})))
    assert ids(await engine.expired(10)) == [tasks[0].id]


async def test_what_another_version_runs_can_be_asked_to_stop_and_what_it_returned_is_stored(
    engine: SQLiteEngine, path: Path
) -> None:
    await engine.enqueue([new()])
    [task] = await engine.claim(claim())
    damage(path, task, """more = '{"new_field": 1}'""")
    [asked] = await engine.cancel([task.id], "no")
    assert (asked.state, asked.cancel_requested, asked.set_aside) == (State.RUNNING, "no", None)
    assert await engine.finish([settle(task, RAISED, Retry(), worker="worker", now=START, random=0)]) == []
    [failed] = await engine.get([task.id])
    assert (failed.state, len(failed.failures)) == (State.FAILED, 1)
    assert column(path, "more", task) == '{"new_field": 1}'


RAISED = Raised(error=ValueError("no"))


async def test_a_task_that_is_set_aside_can_be_cancelled_with_those_behind_it(engine: SQLiteEngine, path: Path) -> None:
    odd = new()
    await engine.enqueue([odd, behind := new(after=odd.id)])
    damage(path, odd, "more = '{'")
    await engine.claim(claim())
    [cancelled] = await engine.cancel([odd.id], "not wanted")
    assert (cancelled.state, cancelled.reason, cancelled.set_aside) == (State.CANCELLED, "not wanted", None)
    assert column(path, "more", odd) == "{"
    [also] = await engine.get([behind.id])
    assert (also.state, also.cause) == (State.CANCELLED, odd.id)
    assert await engine.find(Query(set_aside=True)) == []
    assert await engine.requeue([odd.id]) == []


async def test_a_unique_call_is_answered_by_a_task_that_is_set_aside(engine: SQLiteEngine, path: Path) -> None:
    await engine.enqueue([first := new(unique_key="one", idempotency_key="this")])
    damage(path, first, "more = '{'")
    assert await engine.claim(claim()) == []
    assert ids(await engine.enqueue([new(unique_key="one"), new(idempotency_key="this")])) == [first.id] * 2


async def test_a_row_that_cannot_be_read_is_no_hindrance_when_it_expires(
    engine: SQLiteEngine, path: Path, clock: FakeClock
) -> None:
    await engine.enqueue([odd := new(expires=LEASE), also := new(expires=LEASE)])
    damage(path, odd, """more = '{"new_field": 1}'""")
    clock.advance(LEASE)
    await engine.enqueue([well := new()])
    assert ids(await engine.claim(claim())) == [well.id]
    assert [task.state for task in await engine.get([odd.id, also.id])] == [State.QUEUED, State.CANCELLED]
    damage(path, odd, "more = NULL")
    assert await engine.claim(claim(ids=frozenset({odd.id}))) == []
    assert [task.state for task in await engine.get([odd.id])] == [State.CANCELLED]


async def test_no_place_is_left_for_a_limit_that_a_damaged_start_counts_for(engine: SQLiteEngine, path: Path) -> None:
    limits = {"greet": Limit(max_concurrency=5, rate=Rate(5, MINUTE))}
    await engine.enqueue([new(limit_key="*"), new(limit_key="*")])
    assert len(await engine.claim(claim(1, limits=limits))) == 1
    change(path, "INSERT INTO afterwards_starts VALUES ('greet', '*', 'then', 'later')")
    change(path, f"INSERT INTO afterwards_starts VALUES ('greet', '*', {2**62}, {2**62})")
    assert len(await engine.claim(claim(limits=limits))) == 1
    await engine.prune(10)


@pytest.mark.parametrize("how", ["kind = 'melted'", "at = 9000000000000000000", "message = x'ff'", "attempt = 'one'"])
async def test_a_failure_that_cannot_be_read_hinders_nothing(engine: SQLiteEngine, path: Path, how: str) -> None:
    await engine.enqueue([new(), new()])
    for task in await engine.claim(claim()):
        await engine.finish([settle(task, RAISED, Retry(5, wait=0), worker="worker", now=START, random=0)])
    change(path, f"UPDATE afterwards_failures SET {how} WHERE rowid = 1")
    assert len(await engine.claim(claim())) == 2
    newest, oldest = await engine.find(Query())
    assert [task.unreadable for task in (newest, oldest)] == [None, None]
    assert [failure.kind for failure in oldest.failures] == [FailureKind.UNKNOWN]
    assert [failure.kind for failure in newest.failures] == [FailureKind.RAISED]


@pytest.mark.parametrize("progress", ["{", "[]", '{"colour": 1}', '{"done": "half"}', "x"])
async def test_progress_that_cannot_be_read_is_only_said(engine: SQLiteEngine, path: Path, progress: str) -> None:
    await engine.enqueue([new()])
    [task] = await engine.claim(claim())
    damage(path, task, f"progress = '{progress}'")
    [shown] = await engine.get([task.id])
    assert shown.progress is not None and shown.progress.note == "the stored progress cannot be read"
    assert shown.unreadable is None
    assert await engine.finish([settle(task, RAISED, Retry(5, wait=0), worker="worker", now=START, random=0)]) == []
    assert len(await engine.claim(claim())) == 1


@pytest.mark.parametrize(
    "how", ["worker = x'ff'", "started_at = 'then'", "lease_until = 9000000000000000000", "run_at = 'soon'"]
)
async def test_what_a_claim_writes_anew_may_hold_anything_before(engine: SQLiteEngine, path: Path, how: str) -> None:
    [task] = await engine.enqueue([new()])
    damage(path, task, how)
    [taken] = await engine.claim(claim())
    assert [taken] == await engine.get([task.id])


@pytest.mark.parametrize("how", ["after = 'then'", "after = 9000000000000000000"])
async def test_other_schedules_fire_beside_one_that_cannot_be_read(
    engine: SQLiteEngine, path: Path, clock: FakeClock, how: str
) -> None:
    await engine.register_schedules({"greet": "a", "thank": "b"})
    change(path, f"UPDATE afterwards_schedules SET {how} WHERE name = 'greet'")
    assert [one.name for one in await engine.register_schedules({})] == ["thank"]
    clock.advance(MINUTE)
    fires = [Fire("greet", clock(), new()), Fire("thank", clock(), thank := new())]
    assert ids(await engine.fire(fires)) == [thank.id]


@pytest.mark.parametrize(
    "how", ["names = '['", "names = '[[]]'", "queues = x'ff'", "started_at = 'then'", "slots = 'many'", "host = x'ff'"]
)
async def test_other_workers_are_seen_beside_one_whose_row_cannot_be_read(
    engine: SQLiteEngine, path: Path, how: str
) -> None:
    await engine.announce(
        [LiveWorker(id=id, host="here", pid="1", started_at=START, names=NAMES) for id in ("one", "two")]
    )
    change(path, f"UPDATE afterwards_workers SET {how} WHERE id = 'one'")
    assert [one.id for one in await engine.workers(MINUTE)] == ["two"]


async def test_a_pause_that_cannot_be_read_pauses_nothing_else(engine: SQLiteEngine, path: Path) -> None:
    await engine.enqueue([new(), new(name="thank")])
    await engine.pause(Paused(names=frozenset({"greet"})))
    change(path, "INSERT INTO afterwards_paused VALUES (x'ff', x'ff'), ('name', x'ff'), ('planet', 'greet')")
    assert await engine.paused() == Paused(names=frozenset({"greet"}))
    assert [task.name for task in await engine.claim(claim())] == ["thank"]


async def test_files_that_cannot_be_read_are_pruned_or_left_and_hinder_nothing(
    engine: SQLiteEngine, path: Path, clock: FakeClock
) -> None:
    for row in ("'text', 'text', 0", "x'00', x'00', 0", "1, 2, 'later'", "CAST(x'ff' AS TEXT), x'01', 0"):
        change(path, f"INSERT INTO afterwards_files VALUES ({row})")
    change(path, "INSERT INTO afterwards_chunks VALUES ('text', 'first', 'content')")
    await engine.enqueue([new()])
    [task] = await engine.claim(claim())
    await engine.finish([settle(task, RAISED, Retry(), worker="worker", now=START, random=0)])
    clock.advance(timedelta(days=7))
    assert await engine.prune(10) == 1


async def test_a_finished_row_that_cannot_be_read_is_pruned_with_the_others(
    engine: SQLiteEngine, path: Path, clock: FakeClock
) -> None:
    await engine.enqueue([new(), new(), new()])
    for task in await engine.claim(claim()):
        await engine.finish([settle(task, RAISED, Retry(), worker="worker", now=START, random=0)])
    change(path, "UPDATE afterwards_tasks SET id = 'an id', more = '{' WHERE seq = 1")
    change(path, "UPDATE afterwards_tasks SET more = '{' WHERE seq = 2")
    found = await engine.find(Query(states=frozenset({State.FAILED})))
    assert [(task.unreadable is None, task.set_aside) for task in found] == [(True, None), (False, None), (False, None)]
    clock.advance(timedelta(days=7))
    assert await engine.prune(10) == 3


async def test_a_finished_row_whose_id_is_no_text_is_left_and_hinders_nothing(
    engine: SQLiteEngine, path: Path, clock: FakeClock
) -> None:
    await engine.enqueue([new(), new()])
    for task in await engine.claim(claim()):
        await engine.finish([settle(task, RAISED, Retry(), worker="worker", now=START, random=0)])
    change(path, "UPDATE afterwards_tasks SET id = CAST(x'ff' AS TEXT) WHERE seq = 1")
    clock.advance(timedelta(days=7))
    assert await engine.prune(10) == 1


@pytest.mark.parametrize(
    "how", ["retention = 'long'", "retention = x'ff'", "finished_at = 'soon'", "finished_at = 1.5"]
)
async def test_a_record_that_does_not_say_until_when_it_is_kept_is_kept(
    engine: SQLiteEngine, path: Path, clock: FakeClock, how: str
) -> None:
    await engine.enqueue([new(), new()])
    for task in (tasks := await engine.claim(claim())):
        await engine.finish([settle(task, RAISED, Retry(), worker="worker", now=START, random=0)])
    damage(path, tasks[0], how)
    clock.advance(timedelta(days=70))
    assert await engine.prune(10) == 1
    [kept] = await engine.find(Query())
    assert (kept.id, kept.unreadable is None) == (tasks[0].id, False)


@pytest.mark.parametrize("twin", ["'text'", "5", "x'00'", "-1.5"])
async def test_an_alias_that_names_no_task_is_an_unknown_id(engine: SQLiteEngine, path: Path, twin: str) -> None:
    await engine.enqueue([first := new()])
    id = new().id
    change(path, f"INSERT INTO afterwards_aliases VALUES (x'{id.replace('-', '')}', {twin})")
    assert ids(await engine.get([id, first.id])) == [first.id]
    assert ids(await engine.cancel([id, first.id], "enough")) == [first.id]
    assert ids(await engine.requeue([id, first.id])) == [first.id]


@pytest.mark.parametrize("note", ["'text', 0, 0", "5, 1, 0", "x'00', 'once', 'far'", "-1.5, x'00', x'00'"])
async def test_a_note_that_cannot_be_read_keeps_nobody_from_what_dead_workers_left(
    engine: SQLiteEngine, path: Path, clock: FakeClock, note: str
) -> None:
    await engine.enqueue([new()])
    [task] = await engine.claim(claim())
    change(path, f"INSERT INTO afterwards_behind (task, revived, beyond) VALUES ({note})")
    clock.advance(LEASE)
    assert ids(await engine.expired(10)) == [task.id]


@pytest.mark.parametrize("since", ["'soon'", "x'ff'", "9000000000000000000"])
async def test_a_clock_is_corrected_beside_a_wait_that_does_not_say_since_when(
    engine: SQLiteEngine, path: Path, clock: FakeClock, since: str
) -> None:
    await engine.enqueue([odd := new(wait=timedelta(days=2)), well := new(wait=timedelta(days=2))])
    damage(path, odd, f"queued_at = {since}")
    clock.advance(timedelta(days=-1))
    assert await engine.put_right(LEASE)
    assert not await engine.put_right(LEASE)
    [corrected] = await engine.get([well.id])
    assert corrected.run_at == clock() + timedelta(days=2)


async def test_what_is_due_past_the_end_of_the_calendar_does_not_keep_a_worker_awake(
    engine: SQLiteEngine, path: Path
) -> None:
    await engine.enqueue([new(wait=LEASE), new(wait=timedelta(days=1))])
    for due in (2**62, "'soon'"):
        change(path, f"UPDATE afterwards_tasks SET run_at = {due} WHERE seq = 1")
        await engine.enqueue([new(wait=timedelta(hours=1))])
        await engine.wait(timedelta())


async def test_a_file_of_the_version_before_is_brought_to_this_one(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        await engine.enqueue([task := new()])
    for statement in (
        "DROP TABLE afterwards_dispatches",
        "DROP TRIGGER afterwards_logs_over",
        "DROP TABLE afterwards_logs",
        "DROP TABLE afterwards_tallies",
        "DROP INDEX afterwards_after",
        "ALTER TABLE afterwards_tasks DROP COLUMN secrets",
        "ALTER TABLE afterwards_workers DROP COLUMN more",
        "DROP INDEX afterwards_aside",
        "ALTER TABLE afterwards_tasks DROP COLUMN aside_from",
        "ALTER TABLE afterwards_tasks DROP COLUMN set_aside",
        "ALTER TABLE afterwards_tasks DROP COLUMN failures_left_out",
        "ALTER TABLE afterwards_tasks DROP COLUMN losses",
        "DROP TABLE afterwards_behind",
        "DROP TABLE afterwards_outgoing",
        "DROP TABLE afterwards_taken_over",
        "UPDATE afterwards_schema SET version = 1001",
    ):
        change(path, statement)
    async with SQLiteEngine(path) as engine:
        assert ids(await engine.claim(claim())) == [task.id]


@pytest.mark.parametrize("end", ["'soon'", "x'ff'"])
async def test_a_clock_is_corrected_beside_a_record_that_does_not_say_when_it_ended(
    engine: SQLiteEngine, path: Path, clock: FakeClock, end: str
) -> None:
    await engine.enqueue([odd := new(), well := new()])
    await engine.cancel([odd.id, well.id], "not wanted")
    damage(path, odd, f"finished_at = {end}")
    clock.advance(timedelta(days=-1))
    assert await engine.put_right(LEASE)
    assert not await engine.put_right(LEASE)
    [corrected] = await engine.get([well.id])
    assert corrected.finished_at == clock()
