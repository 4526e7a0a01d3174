"""A process that was stopped for longer than its lease wakes up, and whatever it says of its task is refused.

Meanwhile another process runs the second attempt: a guard that only asks whether the task is running lets it through.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from afterwards import EngineUnavailable, State
from afterwards.core import settling
from afterwards.core.task import FailureKind, NewTask, Task, task_id
from afterwards.engine import Claim
from afterwards.engines.sqlite import SQLiteEngine
from chaos.server import TESTS, TIMEOUT, Server, wait_until


@dataclass(frozen=True)
class Pair:
    """Two servers on one file."""

    folder: Path
    servers: tuple[Server, Server]

    @property
    def database(self) -> Path:
        return self.folder / "tasks.db"

    def add(self, how: str) -> str:
        return httpx.post(f"{self.servers[0].url}/tasks/{how}", timeout=TIMEOUT).json()

    def open(self, gate: str) -> None:
        (self.folder / gate).touch()

    def wait_for(self, sign: str) -> None:
        """Return when a task has given a sign."""
        wait_until((self.folder / sign).exists, f"{sign!r}")

    def who_runs(self, attempt: str) -> Server:
        """The server whose process began this attempt."""
        self.wait_for(f"{attempt} began")
        sign = self.folder / f"{attempt} began"
        wait_until(sign.read_text, f"what {sign.name!r} says")  # a file is there before what is written into it
        pid = sign.read_text()
        [server] = [server for server in self.servers if str(server.pid) == pid]
        return server

    def record(self, id: str) -> Task:
        return asyncio.run(_record(self.database, id))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("zombies")
    environment = {"CHAOS_DATABASE": str(folder / "tasks.db"), "CHAOS_GATES": str(folder)}
    one, other = (Server("chaos.apps.zombies:app", folder=folder, environment=environment) for _ in range(2))
    with one, other:
        for server in (one, other):
            server.wait_until_it_serves()
        yield Pair(folder, (one, other))


@contextmanager
def stopped(pid: int, database: Path) -> Iterator[None]:
    """Stop a process, with all its threads, at a moment when it does not hold the file."""
    try:
        os.kill(pid, signal.SIGSTOP)
        while not asyncio.run(_can_be_written(database)):
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("how", ["succeeds", "fails", "retries", "cancels", "snoozes"])
def test_what_a_zombie_says_at_the_end_is_refused(how: str, pair: Pair) -> None:
    id = pair.add(how)
    zombie = pair.who_runs(f"{how} 1")
    with stopped(zombie.pid, pair.database):
        assert pair.who_runs(f"{how} 2") is not zombie
        before = pair.record(id)
    pair.open(f"{how} may end")
    refusal = f"late worker refused: task {id} is past attempt 1"
    wait_until(lambda: refusal in zombie.log(), refusal)
    after = pair.record(id)
    assert before.state is State.RUNNING
    assert (before.attempt, [failure.kind for failure in before.failures]) == (2, [FailureKind.CRASHED])
    assert without_lease(after) == without_lease(before)
    assert ends_well(pair, how, id)


def test_a_zombie_cannot_renew_its_lease_and_is_stopped(pair: Pair) -> None:
    id = pair.add("renews")
    zombie = pair.who_runs("renews 1")
    with stopped(zombie.pid, pair.database):
        assert pair.who_runs("renews 2") is not zombie
        before = pair.record(id)
    pair.wait_for("renews was stopped")
    assert f"lease lost: linger ({id}), attempt 1 is stopped" in zombie.log()
    assert without_lease(pair.record(id)) == without_lease(before)
    assert ends_well(pair, "renews", id)


def test_the_progress_of_a_zombie_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "tasks.db"
    task = asyncio.run(_store(database))
    with beating(database) as (pid, report):
        assert report("first") == [task.id]
        with stopped(pid, database):
            second = asyncio.run(_take_over(database, task.id))
        assert report("late") == []
    after = asyncio.run(_record(database, task.id))
    assert without_lease(after) == without_lease(second)
    assert (after.attempt, after.progress) == (2, None)


@contextmanager
def beating(database: Path) -> Iterator[tuple[int, Callable[[str], list[str]]]]:
    """A process that has claimed a task: its pid, and how to have it report progress."""
    command = [sys.executable, "-m", "chaos.apps.beating", str(database)]
    with subprocess.Popen(command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        assert json.loads(process.stdout.readline())

        def report(progress: str) -> list[str]:
            print(progress, file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        try:
            yield process.pid, report
        finally:
            process.kill()


def ends_well(pair: Pair, how: str, id: str) -> bool:
    """Let the second attempt end; whether its end is the one that is stored."""
    pair.open(f"{how} may succeed")
    wait_until(lambda: pair.record(id).state.finished, "the second attempt to end")
    record = pair.record(id)
    return (record.state, record.attempt, record.result) == (State.SUCCEEDED, 2, '"second"')


def without_lease(task: Task) -> Task:
    return replace(task, lease_until=None, failures=())  # which no claim reads


async def _record(database: Path, id: str) -> Task:
    async with SQLiteEngine(database) as engine:
        [task] = await engine.get([id])
        return task


async def _can_be_written(database: Path) -> bool:
    try:
        async with SQLiteEngine(database, patience=timedelta(seconds=0.2)) as engine:
            await engine.cancel([task_id(datetime.now(UTC), bytes(10))], "nothing")
    except EngineUnavailable:  # also when it is opened
        return False
    return True


async def _store(database: Path) -> Task:
    async with SQLiteEngine(database) as engine:
        new = NewTask(id=task_id(datetime.now(UTC), os.urandom(10)), name="anything", arguments="{}")
        [task] = await engine.enqueue([new])
        return task


async def _take_over(database: Path, id: str) -> Task:
    """The second attempt of a task, once its first one has lost the lease."""
    async with SQLiteEngine(database) as engine, asyncio.timeout(TIMEOUT):
        while not (lost := await engine.expired(limit=1)):  # noqa: ASYNC110 (time must pass)
            await asyncio.sleep(0.05)
        assert await engine.finish([settling.lose(lost[0], now=datetime.now(UTC))]) == []
        minute = timedelta(minutes=1)
        [task] = await engine.claim(Claim(worker="two", limit=1, lease=minute, names=frozenset({"anything"})))
        assert task.id == id
        return task
