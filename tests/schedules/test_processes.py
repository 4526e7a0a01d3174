"""Several processes with the same schedules, some of them killed. Run as a program, this file is one of them."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from afterwards.core.schedule import Every, Missed
from afterwards.core.task import NewTask, task_id
from afterwards.engine import Fire
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.worker.scheduler import Scheduled, Scheduler
from face.processes import Program, eventually, uvicorn, write_application
from schedules.looking import asked, fired

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FIRES = 300
RACING = 4


def call() -> NewTask:
    return NewTask(id=task_id(datetime.now(UTC), os.urandom(10)), name="tick", arguments="{}")


# What the processes do.


async def race(engine: SQLiteEngine) -> None:
    """Try each fire of a schedule; say which were stored."""
    for number in range(1, FIRES + 1):
        if await engine.fire([Fire("tick", BEGIN + number * SECOND, call())]):
            os.write(1, f"{number}\n".encode())


async def schedule(engine: SQLiteEngine) -> None:
    """Do what a worker's scheduler does, while each look finds a second to have gone by."""
    now = BEGIN
    scheduled = Scheduled(name="tick", schedule=Every(SECOND), missed=Missed.ALL, call=call)
    scheduler = Scheduler(engine, lambda: [scheduled], clock=lambda: now)
    for number in range(1, FIRES + 1):
        now = BEGIN + number * SECOND
        await scheduler.fire()


async def main(path: str, does: str) -> None:
    async with SQLiteEngine(path, clock=lambda: BEGIN) as engine:
        await engine.register_schedules({"tick": str(Every(SECOND))})
        os.write(1, b"ready\n")
        sys.stdin.readline()
        await {"race": race, "schedule": schedule}[does](engine)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))


# The tests.


@contextmanager
def processes(path: Path, does: str) -> Iterator[list["subprocess.Popen[str]"]]:
    """Several processes that begin together."""
    command = [sys.executable, __file__, str(path), does]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(RACING)
    ]
    try:
        for process in started:
            assert process.stdout and process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def stored(path: Path) -> int:
    return int(asked(path, "SELECT count(*) FROM afterwards_tasks WHERE name = 'tick'")[0][0])


def test_processes_that_race_for_the_same_fires_store_each_once(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    with processes(path, "race") as racing:
        stored_here = [line for process in racing for line in process.communicate(timeout=40)[0].split()]
    assert sorted(map(int, stored_here)) == list(range(1, FIRES + 1))
    assert stored(path) == FIRES


def test_schedulers_of_which_some_are_killed_leave_no_fire_out_and_double_none(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    with processes(path, "schedule") as racing:
        for killed, progress in zip(racing[1:], (30, 90, 150), strict=True):
            eventually(lambda progress=progress: stored(path) >= progress)  # type: ignore[misc]
            killed.kill()
        racing[0].communicate(timeout=40)
        assert racing[0].returncode == 0
    assert stored(path) == FIRES


def hourly(minute: int, missed: str) -> str:
    return f"""
        @task(cron="{minute} * * * *", missed="{missed}")
        async def {missed}() -> None:
            write("{missed}")
        """


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """Three schedules that do not fire by themselves during the test, and one that shows that their worker looks."""
    beat = """
        @task(every=1, missed="all")
        async def beat() -> None:
            write(f"beat of {os.getpid()}")
        """
    minute = (datetime.now(UTC).minute + 30) % 60
    hourlies = [hourly(minute, missed) for missed in ("latest", "all", "skip")]
    write_application(tmp_path, *hourlies, beat, "Afterwards(app)")
    return tmp_path


def beats(server: Program) -> int:
    return server.diary().count(f"beat of {server.process.pid}")


def missed_and_done(path: Path) -> dict[str, int]:
    """How many tasks of the hourly schedules have succeeded: they may have run more often, for servers were killed."""
    statement = "SELECT name, count(*) FROM afterwards_tasks WHERE name <> 'beat' AND state = 'succeeded' GROUP BY name"
    return dict(asked(path, statement))


@pytest.mark.timeout(240)
def test_after_a_kill_the_policy_says_what_is_made_up_for_and_another_kill_changes_nothing(application: Path) -> None:
    path = application / "afterwards.db"
    with uvicorn(application) as server:
        eventually(lambda: beats(server) >= 1)
        server.signal(signal.SIGKILL)
        server.ends()
    five_hours = 5 * 3600 * 1_000_000
    asked(path, f"UPDATE afterwards_schedules SET after = after - {five_hours} WHERE name <> 'beat'")
    for _ in range(2):
        before = fired(path, "beat")[0]
        with uvicorn(application) as server:
            eventually(lambda before=before: fired(path, "beat")[0] > before)  # type: ignore[misc]
            eventually(lambda: missed_and_done(path) == {"latest": 1, "all": 5})
            server.signal(signal.SIGKILL)
            server.ends()
    counts = dict(asked(path, "SELECT name, count(*) FROM afterwards_tasks WHERE name <> 'beat' GROUP BY name"))
    assert counts == {"latest": 1, "all": 5}
    assert {"latest", "all"} <= set(server.diary())


def test_a_schedule_of_every_second_has_one_task_for_each_although_its_server_was_killed(application: Path) -> None:
    path = application / "afterwards.db"
    with uvicorn(application) as server:
        eventually(lambda: beats(server) >= 2)
        server.signal(signal.SIGKILL)
        server.ends()
    last, many = fired(path, "beat")
    eventually(lambda: datetime.now(UTC).timestamp() > last + 4)
    with uvicorn(application, "--workers", "2") as server:
        eventually(lambda: fired(path, "beat")[0] >= last + 6)
        server.signal(signal.SIGKILL)
        server.ends()
    last_after, many_after = fired(path, "beat")
    assert many_after - many == last_after - last
