"""What an SQLite engine does to the file, and to files that are not its own."""

import asyncio
import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from afterwards.core.errors import EngineError, EngineUnavailable, InvalidOption
from afterwards.core.task import NewTask, State, task_id
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.engines.sqlite.io import schema
from afterwards.engines.sqlite.io.schema import APPLICATION_ID, VERSION

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[SQLiteEngine]:
    async with SQLiteEngine(path) as engine:
        yield engine


def new() -> NewTask:
    return NewTask(id=task_id(datetime.now(UTC), os.urandom(10)), name="greet", arguments="{}")


async def open_and_close(path: Path) -> None:
    async with SQLiteEngine(path):
        pass


def pragma(path: Path, name: str) -> object:
    with closing(sqlite3.connect(path)) as connection:
        [value] = connection.execute(f"PRAGMA {name}").fetchone()
        return value


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def exists(path: Path) -> bool:
    return path.exists()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_only_its_owner_may_read_the_file_and_what_lies_beside_it(engine: SQLiteEngine, path: Path) -> None:
    await engine.enqueue([new()])
    modes = {entry.name: mode(entry) for entry in path.parent.iterdir()}
    assert modes == {"tasks.db": 0o600, "tasks.db-wal": 0o600, "tasks.db-shm": 0o600, "tasks.db-run": 0o700}
    assert all(mode(entry) & 0o077 == 0 for entry in (path.parent / "tasks.db-run").glob("*.lock"))


async def test_a_closed_engine_leaves_a_whole_file_and_no_sign_of_life(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        await engine.enqueue([new()])
    assert sorted(entry.name for entry in path.parent.rglob("*")) == ["tasks.db", "tasks.db-run", "write.lock"]
    assert pragma(path, "integrity_check") == "ok"


async def test_the_file_says_what_it_is(path: Path) -> None:
    await open_and_close(path)
    assert pragma(path, "application_id") == APPLICATION_ID


async def test_tasks_are_there_when_the_file_is_opened_again(path: Path) -> None:
    task = new()
    async with SQLiteEngine(path) as engine:
        await engine.enqueue([task])
    for _ in range(2):
        async with engine:
            assert [stored.state for stored in await engine.get([task.id])] == [State.QUEUED]


async def test_an_engine_that_several_have_entered_closes_with_the_last(path: Path) -> None:
    engine = SQLiteEngine(path)
    async with engine:
        async with engine:
            await engine.enqueue([new()])
        assert len(await engine.find(Query())) == 1
    with pytest.raises(EngineUnavailable, match="not open"):
        await engine.find(Query())


async def test_an_engine_that_was_not_entered_says_so(path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="async with"):
        await SQLiteEngine(path).enqueue([new()])


async def test_a_file_reached_by_two_names_is_one_file(engine: SQLiteEngine, path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    task = new()
    async with SQLiteEngine(link) as other:
        await other.enqueue([task])
    assert len(await engine.get([task.id])) == 1
    assert not path.with_name("link.db-run").exists()


@pytest.mark.parametrize("path", ["", ":memory:", "file::memory:?cache=shared"])
async def test_memory_is_no_file(path: str) -> None:
    with pytest.raises(InvalidOption, match="memory://"):
        SQLiteEngine(path)


async def test_an_application_s_database_may_hold_the_tasks_and_stays_the_application_s(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE tasks (name TEXT)")
        connection.execute("INSERT INTO tasks VALUES ('mine')")
        connection.execute("PRAGMA user_version = 7")
        connection.commit()
    task = new()
    async with SQLiteEngine(path) as engine:
        await engine.enqueue([task])
        assert len(await engine.get([task.id])) == 1
    assert (pragma(path, "user_version"), pragma(path, "application_id")) == (7, 0)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM tasks").fetchall() == [("mine",)]


async def test_an_empty_database_that_another_program_has_marked_keeps_its_mark(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 1")
    await open_and_close(path)
    assert pragma(path, "application_id") == 1


async def test_an_empty_database_becomes_ours(path: Path) -> None:
    write(path, b"")
    await open_and_close(path)
    assert pragma(path, "application_id") == APPLICATION_ID


@pytest.mark.parametrize("content", [b"This is not a database. " * 100, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_what_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    write(path, bytes(content))
    with pytest.raises(EngineError, match="not an SQLite database, or is damaged"):
        await open_and_close(path)
    assert read(path) == content


async def test_a_file_of_a_later_major_version_is_refused(path: Path) -> None:
    await open_and_close(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(schema.SET_VERSION, (VERSION + 1000,))
        connection.commit()
    with pytest.raises(EngineError, match="later version of afterwards"):
        await open_and_close(path)


async def test_a_file_of_a_later_minor_version_is_used_as_it_is(path: Path) -> None:
    await open_and_close(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE afterwards_tasks ADD COLUMN colour TEXT")
        connection.execute(schema.SET_VERSION, (VERSION + 1,))
        connection.commit()
    task = new()
    async with SQLiteEngine(path) as engine:
        await engine.enqueue([task])
        assert len(await engine.get([task.id])) == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(schema.GET_VERSION).fetchone() == (VERSION + 1,)


async def test_a_damaged_file_is_reported_and_nothing_invented(path: Path) -> None:
    tasks = [new() for _ in range(200)]
    async with SQLiteEngine(path) as engine:
        await engine.enqueue(tasks)
    content = bytearray(read(path))
    content[4096 * 3 :] = b"\xff" * (len(content) - 4096 * 3)
    write(path, bytes(content))
    with pytest.raises(EngineError, match="damaged"):
        async with SQLiteEngine(path) as engine:
            await engine.get([task.id for task in tasks])


async def test_a_file_that_was_deleted_meanwhile_is_made_again(
    engine: SQLiteEngine, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await engine.enqueue([new()])
    for name in ("tasks.db", "tasks.db-wal", "tasks.db-shm"):
        path.with_name(name).unlink()
    task = new()
    await engine.enqueue([task])
    assert [one.id for one in await engine.find(Query())] == [task.id]
    assert "deleted or replaced" in caplog.text
    async with SQLiteEngine(path) as other:
        assert [one.id for one in await other.find(Query())] == [task.id]


async def test_who_only_reads_makes_no_file(engine: SQLiteEngine, path: Path) -> None:
    await engine.enqueue([new()])
    for name in ("tasks.db", "tasks.db-wal", "tasks.db-shm"):
        path.with_name(name).unlink()
    with pytest.raises(EngineUnavailable, match="cannot be opened"):
        await engine.find(Query())
    assert not exists(path)
    await engine.enqueue([new()])
    assert len(await engine.find(Query())) == 1


async def test_engines_that_open_a_new_file_together_all_can(path: Path) -> None:
    async def store_one() -> None:
        async with SQLiteEngine(path) as engine:
            await engine.enqueue([new()])

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(store_one())
    async with SQLiteEngine(path) as engine:
        assert len(await engine.find(Query())) == 5
