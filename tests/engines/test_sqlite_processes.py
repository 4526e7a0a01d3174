"""Several processes on one SQLite file, some of them killed. Run as a program, this file is one of those processes."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from afterwards.core.errors import EngineUnavailable
from afterwards.core.task import NewTask, State, task_id
from afterwards.engine import Claim, Query
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.engines.sqlite.io import runtime
from afterwards.engines.sqlite.io.peers import Mailbox, Presence, WriteLock

pytestmark = pytest.mark.anyio

TIMEOUT = 30.0
"""Seconds of real time after which what should happen is held to be missing."""
LONG = timedelta(minutes=10)
LEASE = timedelta(seconds=30)


def new(**fields: Any) -> NewTask:
    return NewTask(**{"id": task_id(datetime.now(UTC), os.urandom(10)), "name": "greet", "arguments": "{}"} | fields)


def claim(worker: str = "worker", limit: int = 100) -> Claim:
    return Claim(worker=worker, limit=limit, lease=LEASE, names=frozenset({"greet"}))


# What the processes do.


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def load(engine: SQLiteEngine, worker: str) -> None:
    """Store tasks, claim some of them, for ever; say which are stored."""

    async def store() -> None:
        while True:
            [task] = await engine.enqueue([new()])
            say(task.id)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(store())
        while True:
            await engine.claim(claim(worker, limit=5))
            await asyncio.sleep(0.01)


async def take_all(engine: SQLiteEngine, worker: str) -> None:
    """Claim until nothing is left; say what was taken."""
    say("ready")
    sys.stdin.readline()
    while tasks := await engine.claim(claim(worker, limit=7)):
        for task in tasks:
            say(task.id)


async def send_all(engine: SQLiteEngine, worker: str) -> None:
    """Dispatch until nothing is left to send; say what was sent."""
    say("ready")
    sys.stdin.readline()
    while found := await engine.dispatch(claim(worker, limit=7), again=LONG):
        for one in found.tasks:
            say(one.lease.task_id)
        if not found.more:
            return
        await engine.claim(replace(claim(worker), starts=frozenset(one.lease for one in found.tasks)))


async def take_one(engine: SQLiteEngine, worker: str) -> None:
    """Hold one lease, and do nothing more."""
    await engine.claim(claim(worker, limit=1))
    say("ready")
    await asyncio.sleep(TIMEOUT * 2)


async def wait(engine: SQLiteEngine, worker: str) -> None:
    """Wait for something to claim."""
    while not (tasks := await engine.claim(claim(worker))):
        say("waiting")
        await engine.wait(LONG)
    say(tasks[0].id)


def fork(path: Path) -> None:
    """A parent and its child store tasks through the engine that was open at the fork, the child for longer."""
    engine = SQLiteEngine(path)
    with asyncio.Runner() as runner:
        runner.run(engine.__aenter__())
        runner.run(engine.enqueue([new(name="before")]))
        parent_is_done, done = os.pipe()
        child = os.fork()
        if child == 0:
            asyncio.run(engine.enqueue([new(name="child")]))
            os.read(parent_is_done, 1)
            asyncio.run(engine.enqueue([new(name="child, later")]))
            os._exit(0)
        runner.run(engine.enqueue([new(name="parent")]))
        runner.run(engine.__aexit__(None, None, None))
        os.write(done, b".")
        say(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))


# The tests.


class Process:
    """A process that does one of the things above."""

    def __init__(self, path: Path, does: Callable[..., Any], worker: str = "another") -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, path, does.__name__, worker],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin and self._process.stdout
        self.stdin, self.stdout = self._process.stdin, self._process.stdout

    def says(self) -> str:
        return self.stdout.readline().strip()

    def go(self) -> None:
        self.stdin.write("go\n")
        self.stdin.flush()

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> list[str]:
        """Kill it; returns what it said that was not read yet."""
        self._process.kill()
        rest = self.stdout.read().splitlines(keepends=True)
        self._process.wait()
        return [line.strip() for line in rest if line.endswith("\n")]

    def end(self) -> list[str]:
        said = self.stdout.read().split()
        assert self._process.wait(TIMEOUT) == 0
        return said

    def clean_up(self) -> None:
        self._process.kill()
        self._process.wait()
        self.stdin.close()
        self.stdout.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def start(path: Path) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def start(does: Callable[..., Any], worker: str = "another") -> Process:
        processes.append(Process(path, does, worker))
        return processes[-1]

    yield start
    for process in processes:
        process.clean_up()


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[SQLiteEngine]:
    async with SQLiteEngine(path) as engine:
        yield engine


def is_whole(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


@contextmanager
def polling_never(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "POLL", timedelta(hours=1))
        yield


async def test_what_was_acknowledged_survives_kills(path: Path, start: Callable[..., Process]) -> None:
    acknowledged: list[str] = []
    for number in range(3):
        process = start(load, f"worker {number}")
        acknowledged += [process.says() for _ in range(300)]
        acknowledged += process.kill()
    async with SQLiteEngine(path) as engine:
        assert len(await engine.get(acknowledged)) == len(acknowledged) >= 900
        running = {task.id for task in await engine.find(Query(states=frozenset({State.RUNNING}), limit=10_000))}
        assert {task.id for task in await engine.expired(10_000)} == running != set()
    assert is_whole(path)


async def test_processes_never_claim_the_same_task(engine: SQLiteEngine, start: Callable[..., Process]) -> None:
    tasks = [new() for _ in range(700)]
    await engine.enqueue(tasks)
    processes = [start(take_all, f"worker {number}") for number in range(3)]
    for process in processes:
        assert process.says() == "ready"
    for process in processes:
        process.go()
    taken = [id for process in processes for id in process.end()]
    assert sorted(taken) == sorted(task.id for task in tasks)


async def test_processes_never_dispatch_the_same_task(engine: SQLiteEngine, start: Callable[..., Process]) -> None:
    tasks = [new() for _ in range(300)]
    await engine.enqueue(tasks)
    processes = [start(send_all, f"dispatcher {number}") for number in range(3)]
    for process in processes:
        assert process.says() == "ready"
    for process in processes:
        process.go()
    sent = [id for process in processes for id in process.end()]
    assert sorted(sent) == sorted(task.id for task in tasks)


async def test_the_tasks_of_a_killed_process_are_free_at_once(
    engine: SQLiteEngine, path: Path, start: Callable[..., Process]
) -> None:
    await engine.enqueue([new(), new()])
    process = start(take_one)
    assert process.says() == "ready"
    assert await engine.expired(10) == []
    process.kill()
    assert [task.worker for task in await engine.expired(10)] == ["another"]
    assert len(names(path.with_name("tasks.db-run"))) == 3  # the lock of writers, and two files of our own


async def test_a_stopped_process_keeps_its_tasks_until_the_lease_is_over(
    path: Path, start: Callable[..., Process]
) -> None:
    ahead = timedelta()
    async with SQLiteEngine(path, clock=lambda: datetime.now(UTC) + ahead) as engine:
        await engine.enqueue([new()])
        process = start(take_one)
        assert process.says() == "ready"
        process.send(signal.SIGSTOP)
        assert await engine.expired(10) == []
        ahead = LEASE
        assert [task.worker for task in await engine.expired(10)] == ["another"]


async def test_what_another_process_stores_ends_the_wait(engine: SQLiteEngine, start: Callable[..., Process]) -> None:
    process = start(wait)
    assert process.says() == "waiting"
    [task] = await engine.enqueue([new()])
    assert process.end()[-1] == task.id


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_an_engine_that_is_open_at_a_fork_serves_parent_and_child(
    path: Path, start: Callable[..., Process]
) -> None:
    assert start(fork).end() == ["0"]
    async with SQLiteEngine(path) as engine:
        stored = {task.name for task in await engine.find(Query())}
    assert stored == {"before", "child", "parent", "child, later"}
    assert is_whole(path)


# The same among engines of one process, which is faster, and as good: their files and locks are as separate.


async def test_another_engine_is_told_and_need_not_look(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with polling_never(monkeypatch):
        async with SQLiteEngine(path) as one, SQLiteEngine(path) as other:
            await until_quiet(other)
            waiting = asyncio.create_task(other.wait(LONG))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            await one.enqueue([new()])
            async with asyncio.timeout(TIMEOUT):
                await waiting


async def test_another_engine_learns_when_a_task_becomes_due(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with polling_never(monkeypatch):
        async with SQLiteEngine(path) as one, SQLiteEngine(path) as other:
            await until_quiet(other)
            await one.enqueue([new(wait=timedelta(milliseconds=100))])
            async with asyncio.timeout(TIMEOUT):
                while not await other.claim(claim()):
                    await other.wait(LONG)


async def test_where_nobody_can_be_told_everybody_looks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mailbox, "open", lambda self: False)
    async with SQLiteEngine(path) as one, SQLiteEngine(path) as other:
        await until_quiet(other)
        waiting = asyncio.create_task(other.wait(LONG))
        await asyncio.sleep(0.01)
        await one.enqueue([new()])
        async with asyncio.timeout(TIMEOUT):
            await waiting


async def test_a_deep_folder_does_not_keep_engines_from_telling_each_other(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 40)
    folder.mkdir()
    one, other = Mailbox(folder, "one.sock"), Mailbox(folder, "other.sock")
    assert one.open() and other.open()
    one.send()
    assert other.receive(LONG)
    one.close()
    other.close()
    assert names(folder) == []


async def test_a_message_to_a_dead_process_is_dropped(tmp_path: Path) -> None:
    one, dead = Mailbox(tmp_path, "one.sock"), Mailbox(tmp_path, "dead.sock")
    assert one.open() and dead.open()
    dead.forget()
    one.send()
    one.close()


async def test_messages_that_nobody_reads_block_nobody(tmp_path: Path) -> None:
    one, busy = Mailbox(tmp_path, "one.sock"), Mailbox(tmp_path, "busy.sock")
    assert one.open() and busy.open()
    for _ in range(2000):
        one.send()
    one.close()
    busy.close()


async def test_the_dead_are_buried_once_and_the_living_left_alone(tmp_path: Path) -> None:
    living, dead = Presence(tmp_path), Presence(tmp_path)
    for presence in (living, dead):
        presence.enter()
    for presence, worker in ((living, "a"), (dead, "b"), (dead, "c")):
        presence.note(worker)
    observer = Presence(tmp_path)
    with observer.dead() as workers:
        assert workers == []
    dead.forget()  # as the kernel closes what a dead process had open
    with observer.dead() as workers, Presence(tmp_path).dead() as seen_by_another:
        assert (workers, seen_by_another) == (["b", "c"], [])
    with observer.dead() as workers:
        assert workers == []
    living.leave()
    assert names(tmp_path) == []


async def test_the_dead_are_found_again_if_their_tasks_could_not_be_freed(tmp_path: Path) -> None:
    dead = Presence(tmp_path)
    dead.enter()
    dead.note("a")
    dead.forget()
    with pytest.raises(OSError, match="no"), Presence(tmp_path).dead():
        raise OSError("no")
    with Presence(tmp_path).dead() as workers:
        assert workers == ["a"]


@pytest.mark.parametrize("offered", [None, claim()])
async def test_a_process_that_does_not_end_its_write_keeps_nobody_waiting_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch, offered: Claim | None
) -> None:
    monkeypatch.setattr(runtime, "WATCH", timedelta(milliseconds=5))
    async with SQLiteEngine(path, patience=timedelta(milliseconds=20)) as engine:
        lock = WriteLock(path.with_name("tasks.db-run"))
        lock.open()
        given_up, stored = new(), new()
        with lock:
            async with asyncio.timeout(TIMEOUT):
                for _ in range(2):
                    with pytest.raises(EngineUnavailable, match="another process has been writing"):
                        await engine.enqueue([given_up], claim=offered)
        lock.close()
        await until_free(engine, stored, offered)
        assert [task.id for task in await engine.find(Query())] == [stored.id]


async def until_free(engine: SQLiteEngine, stored: NewTask, offered: Claim | None) -> None:
    """Store a task. On a busy machine the engine's patience of 20 ms may be over before it has tried."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            with suppress(EngineUnavailable):
                await engine.enqueue([stored], claim=offered)
                return


async def until_quiet(engine: SQLiteEngine) -> None:
    """Return when the engine has looked round once and knows of no work."""
    assert await engine.claim(claim()) == []
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        await engine.wait(timedelta(milliseconds=20))
        assert await engine.claim(claim()) == []
        started = time.monotonic()
        await engine.wait(timedelta(milliseconds=20))
        if time.monotonic() - started > 0.015:
            return


if __name__ == "__main__":
    [_, file, does, worker] = sys.argv
    if does == "fork":
        fork(Path(file))
    else:

        async def main() -> None:
            async with SQLiteEngine(Path(file)) as engine:
                await globals()[does](engine, worker)

        asyncio.run(main())
