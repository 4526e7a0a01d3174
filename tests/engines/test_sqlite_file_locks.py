"""What else opens, copies, deletes or replaces the file while engines have it open."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from afterwards.core.errors import EngineError, EngineUnavailable
from afterwards.core.task import NewTask, task_id
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.engines.sqlite.io import file_locks

OPEN_AND_CLOSE = """
import asyncio, sys
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine
async def main():
    async with SQLiteEngine(sys.argv[1]) as engine:
        print(len(await engine.find(Query(limit=100_000))))
asyncio.run(main())
"""

STORE_WHEN_ASKED = """
import asyncio, os, sys
from datetime import UTC, datetime
from afterwards.core.task import NewTask, task_id
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine
async def main():
    async with SQLiteEngine(sys.argv[1]) as engine:
        for _ in sys.stdin:
            await engine.enqueue(
                [NewTask(id=task_id(datetime.now(UTC), os.urandom(10)), name="f", arguments="{}") for _ in range(20)]
            )
            print(len(await engine.find(Query(limit=100_000))), flush=True)
asyncio.run(main())
"""

WRITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
"""

SHELL = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM afterwards_tasks").fetchone()[0])
connection.close()
"""


pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "tasks.db"


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[SQLiteEngine]:
    async with SQLiteEngine(path) as engine:
        yield engine


def run(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)


def counted_elsewhere(path: Path, script: str = OPEN_AND_CLOSE) -> int:
    """The number of tasks that another process sees, which opens the file and closes it."""
    done = run(script, path)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def remove(path: Path, *ends: str) -> None:
    for end in ends:
        os.unlink(f"{path}{end}")


def exists(path: Path | str) -> bool:
    return os.path.exists(path)


def until(found: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found():
            return True
        time.sleep(0.02)
    return False


class Other:
    """Another process that has the file open, and stores twenty tasks whenever it is asked to."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", STORE_WHEN_ASKED, str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def store(self) -> int:
        """Returns how many tasks it sees then."""
        assert self._process.stdin and self._process.stdout
        print(file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate(timeout=60)


async def seen(engine: SQLiteEngine) -> int:
    return len(await engine.find(Query(limit=100_000)))


async def store(engine: SQLiteEngine, many: int = 20) -> None:
    await engine.enqueue(
        [
            NewTask(id=task_id(datetime.now(UTC), os.urandom(10)), name="f", arguments='["' + "x" * 300 + '"]')
            for _ in range(many)
        ]
    )


def is_whole(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def read(path: Path) -> None:
    path.read_bytes()


def copy(path: Path) -> None:
    shutil.copy(path, path.with_name("copy.db"))


def copy_folder(path: Path) -> None:
    def copied(source: str, target: str) -> None:
        with suppress(OSError):  # a socket
            shutil.copy2(source, target)

    shutil.copytree(path.parent, path.parent.with_name("copy"), copy_function=copied)


def touch(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        os.close(os.open(f"{path}{end}", os.O_RDWR))


@pytest.mark.parametrize("leaver", [OPEN_AND_CLOSE, SHELL], ids=["engine", "shell"])
async def test_a_file_that_its_application_opens_and_closes_loses_nothing(
    engine: SQLiteEngine,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    leaver: str,
) -> None:
    for round, disturb in enumerate((read, copy, copy_folder, touch, read), 1):
        await store(engine)
        disturb(path)
        assert counted_elsewhere(path, leaver) == 20 * round, disturb
    await store(engine)
    assert counted_elsewhere(path) == 120
    assert is_whole(path)
    assert "was deleted" not in caplog.text  # nothing had to be saved


async def test_the_log_stays_where_it_is_while_one_process_uses_it(engine: SQLiteEngine, path: Path) -> None:
    await store(engine)
    opened = os.open(f"{path}-wal", os.O_RDONLY)  # so that no other file gets its number
    try:
        touch(path)
        counted_elsewhere(path)
        assert os.path.samestat(os.fstat(opened), os.stat(f"{path}-wal"))
    finally:
        os.close(opened)


async def test_the_last_one_to_leave_cleans_up(path: Path) -> None:
    async with SQLiteEngine(path) as engine, SQLiteEngine(path) as second:
        await store(engine)
        await store(second)
        touch(path)
    assert sorted(os.listdir(path.parent)) == ["tasks.db", "tasks.db-run"]
    assert counted_elsewhere(path) == 40


async def test_an_engine_that_closes_drops_no_lock_of_its_application(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        await store(engine)
    with closing(sqlite3.connect(path, isolation_level=None)) as application:
        async with SQLiteEngine(path) as engine:
            application.execute("BEGIN IMMEDIATE")
        assert "locked" in run(WRITE, path).stderr
        application.execute("COMMIT")
        assert run(WRITE, path).returncode == 0
        assert counted_elsewhere(path) == 20
        assert exists(f"{path}-wal")


@pytest.mark.parametrize("ends", [("-wal",), ("-shm",), ("-wal", "-shm")])
async def test_what_was_acknowledged_survives_a_deleted_log(
    engine: SQLiteEngine, path: Path, ends: tuple[str, ...]
) -> None:
    await store(engine)
    remove(path, *ends)
    await store(engine)
    assert counted_elsewhere(path) == 40
    assert len(await engine.get([])) == 0
    await store(engine)
    assert counted_elsewhere(path) == 60
    assert is_whole(path)


@pytest.mark.parametrize("ends", [("-wal",), ("-shm",), ("-wal", "-shm")])
async def test_a_process_that_opens_a_file_without_its_log_waits_for_the_one_that_has_it(
    engine: SQLiteEngine, path: Path, ends: tuple[str, ...]
) -> None:
    await store(engine)
    remove(path, *ends)
    assert counted_elsewhere(path) == 20
    await store(engine)
    assert counted_elsewhere(path) == 40
    assert is_whole(path)


async def test_a_deleted_log_is_saved_though_nothing_else_is_asked_for(engine: SQLiteEngine, path: Path) -> None:
    await store(engine)
    remove(path, "-wal")
    assert until(lambda: exists(f"{path}-wal"))
    shutil.copy(path, path.with_name("copy.db"))
    with closing(sqlite3.connect(path.with_name("copy.db"))) as copied:
        assert copied.execute("SELECT count(*) FROM afterwards_tasks").fetchone() == (20,)


async def test_a_log_that_is_deleted_just_before_the_end_is_saved(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        await store(engine)
        remove(path, "-wal", "-shm")
    assert counted_elsewhere(path) == 20
    assert is_whole(path)


async def test_two_engines_go_on_when_their_log_is_deleted(engine: SQLiteEngine, path: Path) -> None:
    async with SQLiteEngine(path) as second:
        await store(engine)
        await store(second)
        remove(path, "-wal")
        await store(engine)
        await store(second)
        await store(engine)
        assert counted_elsewhere(path) == 100
    assert is_whole(path)


async def test_a_deleted_index_is_left_by_all_processes_and_all_their_connections(
    path: Path, engine: SQLiteEngine
) -> None:
    second = Other(path)
    await store(engine)
    assert (second.store(), await seen(engine)) == (40, 40)  # all have the index open, for reading too
    remove(path, "-shm")
    third = Other(path)
    assert third.store() == 60
    await store(engine)
    assert second.store() == 100
    await store(engine)
    assert third.store() == 140
    second.end()
    await store(engine)
    third.end()
    assert await seen(engine) == 160
    assert counted_elsewhere(path, SHELL) == 160
    assert is_whole(path)


async def test_without_other_processes_a_deleted_index_is_made_again(path: Path, engine: SQLiteEngine) -> None:
    await store(engine)
    await seen(engine)
    remove(path, "-shm")
    assert await seen(engine) == 20  # the reader opens the file anew, and the writer has not noticed yet
    await store(engine)
    assert await seen(engine) == 40
    assert exists(f"{path}-shm")
    assert counted_elsewhere(path) == 40


@pytest.mark.skipif(not file_locks.WORKS, reason="the system does not tell which files are open")
async def test_nothing_is_stored_while_the_application_keeps_a_deleted_index_open(
    path: Path, engine: SQLiteEngine
) -> None:
    await store(engine)
    with closing(sqlite3.connect(path)) as own:
        own.execute("SELECT count(*) FROM afterwards_tasks").fetchall()
        remove(path, "-shm")
        with pytest.raises(EngineUnavailable, match=r"-shm was deleted, and a connection in this process still uses"):
            await store(engine)
    await store(engine)
    assert counted_elsewhere(path) == 40


async def test_a_file_that_is_replaced_is_not_mixed_with_the_old_one_s_log(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with SQLiteEngine(path) as engine:
        await store(engine)
    backup = path.with_name("backup.db")
    shutil.copy(path, backup)
    async with SQLiteEngine(path) as engine:
        await store(engine, 300)
        os.replace(backup, path)
        await store(engine)
        assert counted_elsewhere(path) == 40
        assert is_whole(path)
    assert "deleted or replaced" in caplog.text
    assert is_whole(path)


async def test_a_file_in_use_keeps_its_log_when_a_shell_asks_for_another_journal(
    engine: SQLiteEngine, path: Path
) -> None:
    await store(engine)
    touch(path)
    run("import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('PRAGMA journal_mode=DELETE')", path)
    run("import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM')", path)
    await store(engine)
    assert counted_elsewhere(path) == 40
    assert is_whole(path)


@pytest.mark.parametrize("size", [0, 32, 5000])
@pytest.mark.skipif(not file_locks.WORKS, reason="the index is not looked at here")
async def test_nothing_is_acknowledged_after_the_log_was_truncated_and_the_file_stays_sound(
    path: Path, size: int
) -> None:
    async with SQLiteEngine(path) as engine:
        await store(engine)
        before = await engine.find(Query(limit=100))
    async with SQLiteEngine(path) as engine:
        await store(engine)
        os.truncate(f"{path}-wal", size)
        for _ in range(3):
            with pytest.raises(EngineUnavailable, match="was truncated while it was open"):
                await store(engine, 1)
    assert is_whole(path)
    async with SQLiteEngine(path) as engine:
        assert await engine.find(Query(limit=100)) == before
        await store(engine)


async def test_a_log_that_a_shell_empties_by_a_checkpoint_is_not_taken_for_a_truncated_one(
    engine: SQLiteEngine, path: Path
) -> None:
    for _ in range(5):
        await store(engine)
        with closing(sqlite3.connect(path)) as shell:
            shell.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert len(await engine.find(Query(limit=1000))) == 100


async def test_a_file_that_is_truncated_is_written_again_from_its_log(engine: SQLiteEngine, path: Path) -> None:
    await store(engine)
    os.truncate(path, 0)  # SQLite deletes the log of a file that has nothing in it
    await store(engine)
    assert counted_elsewhere(path) == 40
    await store(engine)
    assert counted_elsewhere(path) == 60
    assert is_whole(path)


FORK = """
import asyncio, fcntl, os, sys
from datetime import UTC, datetime
from afterwards.core.task import NewTask, task_id
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine

def new():
    return NewTask(id=task_id(datetime.now(UTC), os.urandom(10)), name="f", arguments="{}")

async def main():
    async with SQLiteEngine(sys.argv[1]) as engine:
        await engine.enqueue([new()])
        other = os.open(sys.argv[1] + "-run/write.lock", os.O_RDWR)
        fcntl.flock(other, fcntl.LOCK_EX)
        late = asyncio.ensure_future(engine.enqueue([new()]))
        for _ in range(5):
            await asyncio.sleep(0)
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        fcntl.flock(other, fcntl.LOCK_UN)
        await asyncio.gather(late, return_exceptions=True)
        for _ in range(20):
            await engine.enqueue([new()])
            await engine.find(Query())
        print(len(await engine.find(Query())))
asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_a_fork_while_another_process_writes_does_not_disturb_its_parent(path: Path) -> None:
    assert counted_elsewhere(path, FORK) >= 21
    assert is_whole(path)


async def test_a_backup_has_what_the_log_has_and_opens_as_an_engine(engine: SQLiteEngine, path: Path) -> None:
    await store(engine)
    target = path.with_name("backup.db")
    target.write_text("an old one")
    await engine.backup(target)
    await store(engine)
    assert counted_elsewhere(target) == 20
    assert counted_elsewhere(path) == 40
    assert os.stat(target).st_mode & 0o777 == 0o600
    assert not [name for name in os.listdir(path.parent) if name.endswith(".new")]


@pytest.mark.parametrize("target", ["tasks.db", "missing/backup.db"])
async def test_a_backup_that_cannot_be_written_leaves_all_as_it_was(
    engine: SQLiteEngine, path: Path, target: str
) -> None:
    await store(engine)
    with pytest.raises(EngineError):
        await engine.backup(path.parent / target)
    assert counted_elsewhere(path) == 20
