"""What a test sees when it moves the clock."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterwards import Afterwards, BackgroundTasks, task
from afterwards.testing import (
    assert_enqueued,
    assert_not_enqueued,
    clock,
    drain,
    fire_schedules,
    fire_schedules_async,
)
from afterwards.testing.clock import FakeClock
from testing.application import app, tasks

said: list[str] = []


@task
def call_back(email: str) -> None:
    said.append(email)


@task(every=timedelta(days=1))
async def nightly(day: str = "today") -> None:
    said.append(day)


@task(every=timedelta(hours=1), missed="all")
async def beat() -> None:
    said.append("beat")


@task(every=timedelta(days=1), missed="skip")
async def skip() -> None:
    said.append("skip")


@app.post("/call-back/{email}")
def ask(email: str, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(call_back.options(delay=60), email)


@app.post("/pause")
async def pause() -> None:
    await tasks.schedules.pause(nightly)


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    said.clear()


@pytest.fixture
def client() -> TestClient:
    return TestClient(app)


def another() -> FastAPI:
    """An application beside the one of this folder, for as long as a test keeps it."""
    other = FastAPI()
    Afterwards(other, "sqlite:///nor-this.db")

    @other.post("/")
    async def enqueue() -> None:
        await call_back.enqueue("other")

    return other


def until_midnight() -> timedelta:
    """Fires of `every=timedelta(days=1)` are at midnight, UTC."""
    now = clock()()
    return datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1) - now


def test_what_has_become_due_runs_when_it_is_drained(client: TestClient, afterwards_clock: FakeClock) -> None:
    client.post("/call-back/a")
    afterwards_clock.advance(59)
    drain()
    assert said == []
    clock().advance(1)
    assert said == []
    drain()
    assert said == ["a"]


def test_the_fixture_is_the_clock_of_the_test(afterwards_clock: FakeClock) -> None:
    assert afterwards_clock is clock()


@pytest.mark.afterwards(real=True)
def test_real_tasks_have_no_clock_to_move() -> None:
    with pytest.raises(RuntimeError, match="real=True"):
        clock()


def test_a_nightly_job_runs_when_it_has_fired_and_is_drained(client: TestClient) -> None:
    with client:
        clock().advance(timedelta(days=1))
        fire_schedules()
        assert said == []
        drain()
    assert said.count("today") == 1


def test_a_schedule_fires_when_its_time_has_come_and_once(client: TestClient) -> None:
    with client:
        clock().advance(until_midnight() - timedelta(microseconds=1))
        fire_schedules()
        assert_not_enqueued(nightly)
        clock().advance(timedelta(microseconds=1))
        fire_schedules()
        fire_schedules()
        drain()
    assert said.count("today") == 1
    assert assert_enqueued(nightly).origin == "schedule every 1 day, 0:00:00"


def test_missed_decides_what_is_made_up_for(client: TestClient) -> None:
    with client:
        clock().advance(timedelta(days=5))
        fire_schedules()
        drain()
    assert said.count("today") == 1
    assert said.count("beat") == 5 * 24  # more than one write makes up for


def test_what_would_be_skipped_fires_when_the_clock_stops_there(client: TestClient) -> None:
    with client:
        clock().advance(until_midnight() + timedelta(seconds=61))
        fire_schedules()
        assert_not_enqueued(skip)
        clock().advance(until_midnight())
        fire_schedules()
        assert_enqueued(skip)


def test_a_paused_schedule_does_not_fire(client: TestClient) -> None:
    client.post("/pause").raise_for_status()
    clock().advance(timedelta(days=1))
    with client:
        fire_schedules()
    assert_not_enqueued(nightly)
    assert_enqueued(beat)


def test_only_the_application_that_the_test_uses_fires() -> None:
    """However many there are, and whatever other tests used."""
    asyncio.run(tasks.schedules.list())  # opens the first one, as an earlier test may have done
    other = TestClient(another())
    other.post("/").raise_for_status()
    clock().advance(timedelta(days=1))
    drain()
    fire_schedules()
    drain()
    assert said.count("today") == 1


@pytest.mark.anyio
async def test_async_tests_fire_too() -> None:
    clock().advance(timedelta(days=1))
    with TestClient(app):
        await fire_schedules_async()
    assert_enqueued(nightly, day="today")


@pytest.mark.anyio
async def test_an_async_test_is_told_what_to_write() -> None:
    with pytest.raises(RuntimeError, match=r"await fire_schedules_async\(\)"):
        fire_schedules()


class TestWithinTheLifespanOfAClass:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def serving(cls) -> Iterator[None]:
        with TestClient(app):
            yield

    @pytest.mark.parametrize("test", [1, 2])
    def test_every_test_fires_for_its_application(self, test: int) -> None:
        other = TestClient(another())
        other.post("/").raise_for_status()
        clock().advance(timedelta(days=1))
        fire_schedules()
        drain()
        assert said.count("today") == 2  # each application has an engine of its own


ALONE = """
from datetime import timedelta
from afterwards import Afterwards, task
from afterwards.testing import assert_enqueued, clock, fire_schedules
from fastapi import FastAPI

app = FastAPI()
tasks = Afterwards(app)

@task(every=60)
def often() -> None: ...

def test_it_fires() -> None:
    clock().advance(60)
    fire_schedules()
    assert_enqueued(often)
"""


def test_no_request_and_no_lifespan_is_needed(tmp_path: Path) -> None:
    """In a process of its own, for here other tests have used the application before."""
    (tmp_path / "test_alone.py").write_text(ALONE)
    command = [sys.executable, "-m", "pytest", "-q", "test_alone.py"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert shown.returncode == 0, shown.stdout
