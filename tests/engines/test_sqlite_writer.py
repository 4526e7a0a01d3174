"""The threads of an SQLite engine: what is shared, what fails alone, and what happens when nothing works."""

import asyncio
import os
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from afterwards.core.errors import EngineError, EngineUnavailable, RefusedValue
from afterwards.core.retry import Retry
from afterwards.core.settling import SUCCEEDED, Raised, Succeeded, settle, succeed
from afterwards.core.tallies import Ends
from afterwards.core.task import FailureKind, NewTask, State, task_id
from afterwards.engine import Claim, Heartbeat, Query
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.engines.sqlite.io import runtime, thread
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.io.operation import FunctionOperation, Turn

pytestmark = pytest.mark.anyio

TIMEOUT = 10.0
"""Seconds of real time after which what should happen is held to be missing."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[SQLiteEngine]:
    async with SQLiteEngine(path, patience=timedelta(milliseconds=50)) as engine:
        yield engine


def new(**fields: Any) -> NewTask:
    return NewTask(**{"id": task_id(datetime.now(UTC), os.urandom(10)), "name": "greet", "arguments": "{}"} | fields)


def claim(limit: int = 100) -> Claim:
    return Claim(worker="worker", limit=limit, lease=timedelta(seconds=30), names=frozenset({"greet"}))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes, and does not come to an end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


class AfterTheOthers(FunctionOperation[Any]):
    """Runs when all others in its transaction have run."""

    turn = Turn.STORE


async def on_the_writer(
    engine: SQLiteEngine,
    do: str | Callable[[Connection], object],
    kind: type[FunctionOperation[Any]] = FunctionOperation,
) -> None:
    assert engine._opened is not None
    run = do if callable(do) else lambda connection: connection.execute(do).fetchall()
    await engine._opened.writer.ask(kind(run))


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not await condition():  # noqa: ASYNC110  # what happens in the thread sets no event
            await asyncio.sleep(0.005)


def commits(path: Path) -> int:
    """How many transactions are in the log: the last page of each names the size of the file."""
    log = path.with_name(f"{path.name}-wal").read_bytes()
    return sum(struct.unpack_from(">I", log, at + 4)[0] > 0 for at in range(32, len(log), 24 + 4096))


# One transaction for many.


async def test_what_is_asked_for_together_is_committed_together(engine: SQLiteEngine, path: Path) -> None:
    before = commits(path)
    await asyncio.gather(*(engine.enqueue([new()]) for _ in range(100)))
    assert commits(path) - before <= 3


async def together(path: Path, *calls: Coroutine[Any, Any, list[Any]]) -> list[list[Any]]:
    """Make calls, in this order, that end up in one transaction: nobody can write before all have been made."""
    with locked(path):
        asked = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0.01)
    return await asyncio.gather(*asked)


async def traced(engine: SQLiteEngine) -> list[str]:
    """Return a list to which the writer's statements will be added."""
    asked = list[str]()
    await on_the_writer(
        engine, lambda connection: cast(sqlite3.Connection, connection).set_trace_callback(asked.append)
    )
    return asked


async def test_most_transactions_are_six_statements(engine: SQLiteEngine) -> None:
    """Each lets go of the interpreter, and a busy event loop gives it back late."""
    asked = await traced(engine)
    begun = await engine.enqueue([new() for _ in range(32)], claim=claim())
    asked.clear()
    finished = engine.finish([succeed(task, Succeeded(f'"{number}"')) for number, task in enumerate(begun)])
    refused, *stored = await asyncio.gather(finished, *(engine.enqueue([new()], claim=claim()) for _ in range(32)))
    assert [statement.split()[0] for statement in asked] == ["BEGIN", "UPDATE", "SELECT", "INSERT", "INSERT", "COMMIT"]
    assert refused == []
    assert {task.state for [task] in stored} == {State.RUNNING}
    assert [task.result for task in await engine.get([task.id for task in begun])] == [f'"{n}"' for n in range(32)]


async def test_ends_that_share_a_transaction_are_counted_by_one_statement(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        tasks = await engine.enqueue([new() for _ in range(4)], claim=claim())
        asked = await traced(engine)
        failed = settle(
            tasks[3], Raised(error=ValueError("no")), Retry(0), worker="w", now=tasks[3].created_at, random=0
        )
        ends = [succeed(task, SUCCEEDED) for task in tasks[:3]] + [failed]
        await together(path, *(engine.finish([end]) for end in ends))
        assert sum("afterwards_tallies" in statement for statement in asked) == 1
        [tally] = await engine.tallies(timedelta(hours=1), timedelta(days=1))
        assert tally.ends == Ends(succeeded=3, failed=1)


async def test_what_comes_to_wait_within_a_transaction_is_seen_by_the_ends_after_it(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        other, before = await engine.enqueue([new(), new()], claim=claim())
        behind = new(after=before.id)
        finished = [engine.finish([succeed(task, SUCCEEDED)]) for task in (other, before)]
        await together(path, finished[0], engine.enqueue([behind]), finished[1])
        assert [task.state for task in await engine.get([behind.id])] == [State.QUEUED]


async def test_workers_hear_at_once_that_a_limit_lets_others_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "POLL", timedelta(hours=1))
    async with SQLiteEngine(path) as engine:
        await engine.enqueue([new(limit_key="ada")])
        [task] = await engine.claim(claim())
        async with asyncio.timeout(TIMEOUT):
            waiting = asyncio.create_task(engine.wait(timedelta(hours=1)))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            assert await engine.finish([succeed(task, SUCCEEDED)]) == []
            await waiting


async def test_two_workers_may_share_a_transaction(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        claims = [replace(claim(), worker=worker) for worker in ("one", "another")]
        answers = await together(path, *(engine.enqueue([new()], claim=one) for one in claims))
        stored = await engine.get([answer[0].id for answer in answers])
    assert [task.worker for task in stored] == ["one", "another"]
    assert stored == [task for answer in answers for task in answer]


async def test_a_short_lease_begins_when_it_is_stored(path: Path) -> None:
    """However long another connection has kept the file."""
    short = replace(claim(), lease=timedelta(seconds=0.5))
    async with SQLiteEngine(path) as engine:
        with locked(path):
            asked = asyncio.create_task(engine.enqueue([new()], claim=short))
            await asyncio.sleep(0.3)
            before = datetime.now(UTC)
        [task] = await asked
    assert task.lease_until
    assert task.lease_until - before >= short.lease


async def test_what_is_leased_after_all_to_a_caller_who_was_told_that_it_failed_goes_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "WATCH", timedelta(milliseconds=5))
    disk_works_again = threading.Event()
    async with SQLiteEngine(path) as engine:
        task = new(held=True)
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(thread, "LONGEST_CALL", 0.02)  # not for what is asked afterwards: the machine may be busy
            storing = engine.enqueue([task], claim=claim())
            stuck = on_the_writer(engine, lambda connection: disk_works_again.wait(), AfterTheOthers)
            answers = await asyncio.gather(storing, stuck, return_exceptions=True)
        assert [str(answer).partition("has not ")[2][:8] for answer in answers] == ["answered"] * 2
        disk_works_again.set()

        async def is_held_back() -> bool:
            return [one.state for one in await engine.get([task.id])] == [State.SCHEDULED]

        await until(is_held_back)


async def test_old_versions_of_sqlite_allow_few_values_for_one_statement(engine: SQLiteEngine) -> None:
    def as_they_do(connection: Connection) -> None:
        cast(sqlite3.Connection, connection).setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)

    await on_the_writer(engine, as_they_do)
    stored = await engine.enqueue([new() for _ in range(128)], claim=claim(limit=128))
    finish = engine.finish([succeed(task, SUCCEEDED) for task in stored])
    refused, more = await asyncio.gather(finish, engine.enqueue([new() for _ in stored], claim=claim(limit=128)))
    assert (refused, {task.state for task in more}) == ([], {State.RUNNING})


async def test_a_claim_finds_what_was_stored_in_the_same_transaction(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        stored, taken = await together(path, engine.enqueue([new()]), engine.claim(claim()))
        assert [task.id for task in taken] == [task.id for task in stored]


async def test_what_could_be_leased_at_once_comes_after_the_claim_of_what_is_older(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        older = await engine.enqueue([new()])
        calls = [engine.enqueue([new()], claim=claim()), engine.claim(claim())]
        stored, taken = await together(path, *calls)
        assert [task.id for task in taken] == [task.id for task in older]
        assert [task.state for task in stored] == [State.RUNNING]


async def test_nothing_passes_what_was_queued_in_the_same_transaction(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        calls = [engine.enqueue([new(), new()], claim=claim(limit=1)), engine.enqueue([new()], claim=claim())]
        first, second = await together(path, *calls)
        assert [task.state for task in (*first, *second)] == [State.RUNNING, State.QUEUED, State.QUEUED]


async def test_the_same_call_twice_in_a_transaction_stores_once(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        twice, other = new(), new()
        answers = await together(path, *(engine.enqueue([task]) for task in (twice, other, twice)))
        assert [answer[0].id for answer in answers] == [twice.id, other.id, twice.id]
        assert len(await engine.find(Query())) == 2


async def test_tasks_of_all_kinds_keep_the_order_in_which_they_came(engine: SQLiteEngine) -> None:
    kinds: list[dict[str, Any]] = [{}, {"origin": "GET /"}, {}, {"held": True}, {"retention": timedelta(days=1)}, {}]
    tasks = [new(**kind) for kind in kinds * 12 + [{}] * 40]
    stored = await engine.enqueue(tasks)
    assert [task.id for task in stored] == [task.id for task in tasks]
    assert await engine.find(Query(limit=1000)) == stored[::-1]


async def test_a_task_that_was_stored_cannot_be_changed(engine: SQLiteEngine) -> None:
    [task] = await engine.enqueue([new()])
    for one in (task, *await engine.get([task.id])):
        with pytest.raises(FrozenInstanceError):
            one.name = "another"  # type: ignore[misc]  # that is the test


async def test_what_cannot_be_stored_fails_alone(engine: SQLiteEngine) -> None:
    tasks = [new(), new(priority=2**70), new(arguments="\ud800"), new(id="no uuid"), new(after="no uuid"), new()]
    answers = await asyncio.gather(*(engine.enqueue([task]) for task in tasks), return_exceptions=True)
    refused = [isinstance(answer, EngineError | RefusedValue) for answer in answers]
    assert refused == [False, True, True, True, True, False]
    assert {task.id for task in await engine.find(Query())} == {tasks[0].id, tasks[-1].id}


async def test_an_id_that_cannot_be_one_is_unknown(engine: SQLiteEngine) -> None:
    strange = ["", "x", "no uuid", "00", "'; DROP TABLE tasks"]
    assert await engine.get(strange) == []
    assert await engine.cancel(strange, "no") == []
    assert await engine.requeue(strange) == []


async def test_a_caller_that_goes_away_does_not_disturb_the_others(engine: SQLiteEngine) -> None:
    calls = [asyncio.create_task(engine.enqueue([new(), new()])) for _ in range(40)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [len(answer) for answer in answers[1::2] if isinstance(answer, list)] == [2] * 20
    assert len(await engine.find(Query())) % 2 == 0


@pytest.mark.parametrize("stored_before", [True, False])
async def test_tasks_that_were_leased_to_a_caller_that_went_away_are_given_back(
    path: Path, stored_before: bool
) -> None:
    async with SQLiteEngine(path) as engine:
        task = new()
        if stored_before:
            await engine.enqueue([task])
        with locked(path):
            taking = engine.claim(claim()) if stored_before else engine.enqueue([task], claim=claim())
            call = asyncio.create_task(taking)
            await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.wait([call])

        async def is_given_back() -> bool:
            return [(one.state, one.attempt) for one in await engine.get([task.id])] == [(State.QUEUED, 1)]

        await until(is_given_back)
        [stored] = await engine.get([task.id])
        assert [failure.kind for failure in stored.failures] == [FailureKind.RELEASED]


async def test_what_was_leased_for_a_request_that_went_away_stays_held_back(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        task = new(held=True)
        with locked(path):
            call = asyncio.create_task(engine.enqueue([task], claim=claim()))
            await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.wait([call])

        async def is_held() -> bool:
            return [(one.state, one.attempt) for one in await engine.get([task.id])] == [(State.SCHEDULED, 1)]

        await until(is_held)
        [stored] = await engine.get([task.id])
        assert stored.failures == ()


async def test_a_repeated_call_that_nobody_waits_for_gives_nothing_back_that_runs(
    engine: SQLiteEngine, path: Path
) -> None:
    task = new()
    await engine.enqueue([task], claim=claim())
    call = asyncio.create_task(engine.enqueue([task], claim=claim()))
    await asyncio.sleep(0)
    call.cancel()
    await engine.enqueue([new()])  # together with that call, or behind it
    await engine.enqueue([new()])  # behind whatever its end has asked for
    assert [one.state for one in await engine.get([task.id])] == [State.RUNNING]


async def test_the_hour_that_comes_twice_in_autumn_is_two_hours(engine: SQLiteEngine) -> None:
    """Two such instants are equal, says Python, where they differ only in ``fold``."""
    first = datetime(2030, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    tasks = [new(run_at=first), new(run_at=first.replace(fold=1))]
    await engine.enqueue(tasks)
    found = [one.run_at for one in await engine.get([task.id for task in tasks])]
    assert found == [datetime(2030, 10, 27, hour, 30, tzinfo=UTC) for hour in (0, 1)]


async def test_a_repeated_call_finds_no_lease_that_is_being_given_back(engine: SQLiteEngine) -> None:
    """Who holds it would run the task, and be refused at its end."""
    task = new(held=True)
    call = asyncio.create_task(engine.enqueue([task], claim=claim()))
    await asyncio.sleep(0)
    call.cancel()
    [stored] = await engine.enqueue([task], claim=claim())
    await engine.enqueue([new()])  # behind the giving back
    [found] = await engine.get([task.id])
    assert (stored.state, found.state) == (State.SCHEDULED, State.SCHEDULED)
    await engine.publish([(stored.lease, None)])
    assert task.id in {one.id for one in await engine.claim(claim())}


# Nothing to do.


async def test_an_idle_worker_does_not_lock_the_file(engine: SQLiteEngine, path: Path) -> None:
    await engine.enqueue([new(name="unknown here"), new(wait=timedelta(hours=1))])
    before = commits(path)
    with locked(path):
        assert await engine.claim(claim()) == []
        assert await engine.prune(10) == 0
        assert await engine.expired(10) == []
        assert await engine.enqueue([]) == []
        assert await engine.finish([]) == []
        assert await engine.heartbeat([], lease=timedelta(seconds=1)) == []
        await engine.publish([])
    assert commits(path) == before


# The file cannot be written.


async def test_a_locked_file_is_unavailable_and_comes_back_by_itself(engine: SQLiteEngine, path: Path) -> None:
    task = new()
    with locked(path):
        with pytest.raises(EngineUnavailable, match="locked"):
            await engine.enqueue([task])
        assert await engine.get([task.id]) == []
    await engine.enqueue([task])
    assert len(await engine.get([task.id])) == 1


async def test_callers_of_a_locked_file_fail_together_not_one_after_the_other(engine: SQLiteEngine, path: Path) -> None:
    with locked(path):
        async with asyncio.timeout(TIMEOUT):
            answers = await asyncio.gather(*(engine.enqueue([new()]) for _ in range(300)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {EngineUnavailable}
    assert len({id(answer) for answer in answers}) == 300


async def test_a_full_disk_is_unavailable_and_loses_nothing(engine: SQLiteEngine, path: Path) -> None:
    kept = new(arguments='"' + "x" * 10_000 + '"')
    await engine.enqueue([kept])
    await on_the_writer(engine, "PRAGMA max_page_count = 1")
    with pytest.raises(EngineUnavailable, match="full"):
        await engine.enqueue([new(arguments='"' + "x" * 100_000 + '"')])
    assert [task.id for task in await engine.find(Query())] == [kept.id]
    await on_the_writer(engine, "PRAGMA max_page_count = 1000000")
    await engine.enqueue([new()])
    assert len(await engine.find(Query())) == 2


async def test_a_file_that_became_read_only_is_unavailable_and_comes_back(engine: SQLiteEngine) -> None:
    await on_the_writer(engine, "PRAGMA query_only = 1")
    with pytest.raises(EngineUnavailable, match="the file is read-only"):
        await engine.enqueue([new()])
    await engine.enqueue([new()])
    assert len(await engine.find(Query())) == 1


async def test_the_cause_of_an_error_is_kept(engine: SQLiteEngine, path: Path) -> None:
    with locked(path), pytest.raises(EngineUnavailable) as caught:
        await engine.enqueue([new()])
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert str(path) in str(caught.value)


# The thread is gone.


class Death(BaseException):
    """Nothing that anybody expects."""


async def test_nobody_waits_for_a_dead_thread(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    alive = True

    def clock() -> datetime:
        if alive or threading.current_thread() is threading.main_thread():
            return datetime.now(UTC)
        raise Death

    task = new()
    engine = SQLiteEngine(path, clock=clock)
    async with engine:
        await engine.enqueue([task])
        alive = False
        answers = await asyncio.gather(*(engine.enqueue([new()]) for _ in range(5)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {EngineUnavailable}
        alive = True
        with pytest.raises(EngineUnavailable, match=r"writer .* died"):
            await engine.claim(claim())
    assert "died; tasks are refused" in caplog.text
    async with engine:
        assert len(await engine.claim(claim())) == 1


async def test_nobody_waits_for_a_thread_that_is_stuck(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "WATCH", timedelta(milliseconds=10))
    began, disk_works_again = threading.Event(), threading.Event()
    async with SQLiteEngine(path) as engine:
        monkeypatch.setattr(thread, "LONGEST_CALL", 0.05)  # from now on: to open the file may take longer
        stuck = asyncio.create_task(on_the_writer(engine, lambda connection: (began.set(), disk_works_again.wait())))
        assert await asyncio.to_thread(began.wait, TIMEOUT)  # the calls below would share its transaction before
        waiting = [asyncio.create_task(engine.enqueue([new()])) for _ in range(3)]
        async with asyncio.timeout(TIMEOUT):
            answers = await asyncio.gather(stuck, *waiting, return_exceptions=True)
        monkeypatch.undo()  # a real disk may take as long
        disk_works_again.set()
        assert {type(answer) for answer in answers} == {EngineUnavailable}
        await engine.enqueue([new()])
        assert len(await engine.find(Query())) == 1


async def test_calls_during_and_after_the_close_are_answered(path: Path) -> None:
    engine = SQLiteEngine(path)
    async with engine:
        calls = [asyncio.create_task(engine.enqueue([new()])) for _ in range(50)]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*calls)
    assert [len(answer) for answer in answers] == [1] * 50
    with pytest.raises(EngineUnavailable):
        await engine.heartbeat([Heartbeat(answers[0][0].lease)], lease=timedelta(seconds=1))


async def test_a_loop_that_was_closed_disturbs_nobody(engine: SQLiteEngine, path: Path) -> None:
    def ask_and_go() -> None:
        loop = asyncio.new_event_loop()
        call = loop.create_task(engine.enqueue([new()], claim=claim()))
        loop.run_until_complete(asyncio.sleep(0.001))
        call.cancel()
        loop.run_until_complete(asyncio.wait([call]))
        loop.close()

    with locked(path):
        await asyncio.to_thread(ask_and_go)
    await engine.enqueue([new()])


def test_a_process_that_forgets_to_close_ends_all_the_same(path: Path) -> None:
    script = """
import asyncio, sys
from pathlib import Path
from afterwards.engines.sqlite import SQLiteEngine

asyncio.run(SQLiteEngine(Path(sys.argv[1])).__aenter__())
"""
    ended = subprocess.run([sys.executable, "-c", script, path], timeout=30, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


async def test_who_comes_while_others_are_kept_waiting_waits_no_longer_than_they_do(path: Path) -> None:
    patience = 2
    async with SQLiteEngine(path, patience=timedelta(seconds=patience)) as engine:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            first = asyncio.create_task(engine.enqueue([new()]))
            await asyncio.sleep(0.1)
            begun = time.monotonic()
            with pytest.raises(EngineUnavailable, match="locked"):
                await engine.enqueue([new()])
            assert patience * 0.9 < time.monotonic() - begun < patience * 1.7
            with pytest.raises(EngineUnavailable, match="locked"):
                await first
            last = asyncio.create_task(engine.enqueue([new()]))
            await asyncio.sleep(0.1)
            other.execute("ROLLBACK")
        assert len(await last) == 1


async def test_what_one_statement_cannot_store_is_stored_all_the_same(path: Path) -> None:
    several = [new(), new(origin="POST /"), new(wait=timedelta(hours=1)), new(rerun_after_crash=False)]
    async with SQLiteEngine(path) as engine:
        await asyncio.gather(*(engine.enqueue([one]) for one in several), engine.enqueue([new() for _ in range(100)]))
        assert len(await engine.find(Query(limit=1000))) == 104


async def test_a_call_that_is_sent_twice_for_anybody_is_stored_once(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        one = new()
        [first], [second] = await asyncio.gather(engine.enqueue([one]), engine.enqueue([one]))
        [third] = await engine.enqueue([one])
        assert first == second == third
        assert len(await engine.find(Query())) == 1
