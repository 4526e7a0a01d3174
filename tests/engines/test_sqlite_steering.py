"""What a file keeps for people who look on and steer, beside versions that do not know of it, and damaged."""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from afterwards.core.routing import LiveWorker, PlainRun
from afterwards.core.settling import SUCCEEDED, succeed
from afterwards.core.task import LogLine, NewTask, State, Task, task_id
from afterwards.engine import Claim, Query
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.engines.sqlite.operations import searching
from afterwards.testing.clock import START, FakeClock

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)
LINE = LogLine(attempt=1, at=START, level="INFO", logger="shop", message="a line")
WORKER = LiveWorker(
    id="ada",
    host="h",
    pid="1",
    started_at=START,
    names=frozenset({"greet"}),
    lag=timedelta(milliseconds=3),
    version="1.0",
    running=(PlainRun("thumbnail", START),),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[SQLiteEngine]:
    async with SQLiteEngine(path, clock=FakeClock()) as engine:
        yield engine


def new(**fields: Any) -> NewTask:
    return NewTask(**{"id": task_id(START, os.urandom(10)), "name": "greet", "arguments": "{}"} | fields)


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, timeout=20)) as connection, connection:
        connection.execute(statement)


def number(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path, timeout=20)) as connection:
        [found] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(found)


async def logged(engine: SQLiteEngine) -> Task:
    """A task that succeeded and logged a line."""
    await engine.enqueue([new()])
    [task] = await engine.claim(Claim(worker="w", limit=1, lease=MINUTE, names=frozenset({"greet"})))
    await engine.finish([replace(succeed(task, SUCCEEDED), logs=(LINE,))])
    return task


async def test_the_version_before_deletes_logs_with_their_task(engine: SQLiteEngine, path: Path) -> None:
    await logged(engine)
    assert number(path, "afterwards_logs") == 1
    change(path, "DELETE FROM afterwards_tasks")
    assert number(path, "afterwards_logs") == 0


async def test_the_version_before_stores_tasks_and_workers_beside_this_one(engine: SQLiteEngine, path: Path) -> None:
    change(
        path,
        "INSERT INTO afterwards_tasks (id, name, arguments, created_at, state, queue, priority)"
        f" VALUES (x'{os.urandom(16).hex()}', 'greet', '{{}}', 0, 'queued', 'default', 0)",
    )
    change(
        path,
        "INSERT OR REPLACE INTO afterwards_workers (id, host, pid, started_at, names, queues, slots, has_left, seen_at)"
        f" VALUES ('old', 'h', '1', 0, '[]', NULL, 1, 0, {int(START.timestamp() * 1_000_000)})",
    )
    [task] = await engine.find(Query())
    assert (task.secrets, task.logs, task.unreadable) == ((), (), None)
    [worker] = await engine.workers(MINUTE)
    assert (worker.id, worker.lag, worker.version, worker.running) == ("old", None, "", ())


@pytest.mark.parametrize("lines", ["'['", "'{}'", "'[1]'", "'[[1, 2]]'", '\'[["then", "a", "b", "c"]]\'', "x'ff'"])
async def test_lines_that_cannot_be_read_are_said_to_be(engine: SQLiteEngine, path: Path, lines: str) -> None:
    task = await logged(engine)
    change(path, f"UPDATE afterwards_logs SET lines = {lines}")
    [found] = await engine.get([task.id])
    assert found.unreadable is None
    assert [line.message for line in found.logs] in ([], ["this version cannot read what this attempt logged"])


async def test_a_line_with_half_a_character_is_kept_without_it(engine: SQLiteEngine) -> None:
    await engine.enqueue([new()])
    [task] = await engine.claim(Claim(worker="w", limit=1, lease=MINUTE, names=frozenset({"greet"})))
    odd = replace(LINE, message="a \ud83d line")
    assert await engine.finish([replace(succeed(task, SUCCEEDED), logs=(odd,))]) == []
    [found] = await engine.get([task.id])
    assert [line.message for line in found.logs] == ["a ? line"]


@pytest.mark.parametrize("more", ["'{'", "'[]'", "'7'", "x'ff'", """'{"lag": "long"}'""", """'{"running": [1]}'"""])
async def test_a_worker_is_alive_whatever_else_it_tells(engine: SQLiteEngine, path: Path, more: str) -> None:
    await engine.announce([WORKER])
    change(path, f"UPDATE afterwards_workers SET more = {more}")
    [found] = await engine.workers(MINUTE)
    assert (found.id, found.lag, found.running) == ("ada", None, ())


async def test_what_a_later_version_tells_of_a_worker_is_left_out(engine: SQLiteEngine, path: Path) -> None:
    await engine.announce([WORKER])
    change(path, """UPDATE afterwards_workers SET more = json_set(more, '$.mood', 'fine')""")
    assert await engine.workers(MINUTE) == [replace(WORKER, seen_at=START)]


async def test_arguments_are_not_shown_if_it_is_not_known_which_are_secret(engine: SQLiteEngine, path: Path) -> None:
    await engine.enqueue([task := new(arguments='{"password":"hunter2"}', secrets=("password",))])
    change(path, "UPDATE afterwards_tasks SET secrets = '[', result = '\"hunter2\"'")
    [found] = await engine.get([task.id])
    assert found.unreadable
    assert "hunter2" not in repr(found)
    assert await engine.find(Query(text="hunter2")) == []


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 100])
async def test_a_text_is_sought_in_pieces(engine: SQLiteEngine, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(searching, "MOST_SEARCHED", most)
    tasks = [new(name="thank" if number % 2 else "greet") for number in range(8)]
    await engine.enqueue(tasks)
    await engine.claim(Claim(worker="w", limit=1, lease=MINUTE, names=frozenset({"greet"})))
    newest = [task.id for task in reversed(tasks) if task.name == "greet"]
    assert [task.id for task in await engine.find(Query(text="GREET"))] == newest
    assert [task.id for task in await engine.find(Query(text="greet", limit=3))] == newest[:3]
    assert [task.id for task in await engine.find(Query(text="greet", before=newest[1]))] == newest[2:]
    assert await engine.count(Query(text="greet")) == 4
    assert await engine.count(Query(text="greet", limit=3)) == 3
    assert await engine.count(Query(text="greet", states=frozenset(State) - {State.RUNNING})) == 3


async def test_a_text_that_no_file_can_hold_is_in_no_task(engine: SQLiteEngine) -> None:
    await engine.enqueue([new()])
    assert await engine.find(Query(text="\ud83d")) == []
    assert len(await engine.find(Query(text=""))) == 1
