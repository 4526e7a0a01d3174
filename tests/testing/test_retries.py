"""A test sees what an attempt raised, also where a retry would follow, unless it permits retries."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import Depends
from fastapi.testclient import TestClient

from afterwards import BackgroundTasks, Cancel, Retry, RetryAfter, Snooze, State, task
from afterwards.testing import allow_retries, assert_enqueued, clock, crash_at, drain, drain_async, fire_schedules
from testing.application import app

ran: list[str] = []


def unreachable() -> str:
    raise ConnectionError("no database")


@task(retries=3)
def wrong() -> None:
    ran.append("wrong")
    raise ValueError("is wrong")


@task(retries=Retry(3, on=ValueError))
async def wrong_too() -> None:
    raise ValueError("is wrong")


@task
def wrong_once() -> None:
    ran.append("wrong_once")
    if len(ran) == 1:
        raise ValueError("is wrong")


@task(retries=2)
async def depends(db: str = Depends(unreachable)) -> None: ...


@task(retries=2, run_in="process")
def apart() -> None:
    raise ValueError("is wrong")


@task(retries=2, timeout=timedelta(microseconds=1))
def slow() -> None:
    clock()  # takes longer than that


@task(retries=2)
def asserts() -> None:
    pytest.fail("the task found a mistake")


@task(retries=2)
def later() -> None:
    raise RetryAfter(30)


@task(retries=2)
def sleepy() -> None:
    if not ran:
        ran.append("sleepy")
        raise Snooze(30)


@task(retries=2)
def given_up() -> None:
    raise Cancel("not needed")


@task(every=timedelta(days=1), retries=2)
async def daily() -> None:
    """Fires in every test of this folder that fires schedules, and fails in one."""
    if "daily fails" in ran:
        raise ValueError("is wrong")


FUNCTIONS = {one.name: one for one in (wrong, wrong_too, depends, apart, slow, asserts, later, sleepy, given_up)}


@app.post("/retried/{name}")
def add(name: str, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(FUNCTIONS[name])


@app.post("/retried-once")
def add_with_retries(background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(wrong_once.options(retries=2))


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@pytest.fixture
def client() -> TestClient:
    return TestClient(app)


@pytest.mark.parametrize("name", ["wrong", "wrong_too", "apart"])
def test_what_an_attempt_raises_is_raised_although_a_retry_would_follow(client: TestClient, name: str) -> None:
    with pytest.raises(ValueError, match="is wrong"):
        client.post(f"/retried/{name}")


def test_so_is_what_a_dependency_raises(client: TestClient) -> None:
    with pytest.raises(ConnectionError, match="no database"):
        client.post("/retried/depends")


def test_so_is_a_timeout(client: TestClient) -> None:
    with pytest.raises(TimeoutError, match="longer than its timeout"):
        client.post("/retried/slow")


def test_so_is_a_failed_assertion_of_pytest(client: TestClient) -> None:
    with pytest.raises(pytest.fail.Exception, match="found a mistake"):
        client.post("/retried/asserts")


def test_so_is_what_a_call_raises_that_has_retries_of_its_own(client: TestClient) -> None:
    with pytest.raises(ValueError, match="is wrong"):
        client.post("/retried-once")
    assert ran == ["wrong_once"]


@pytest.mark.anyio
async def test_so_is_what_an_async_client_causes() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        with pytest.raises(ValueError, match="is wrong"):
            await client.post("/retried/wrong")


@pytest.mark.anyio
async def test_so_is_what_no_request_has_added() -> None:
    await wrong.enqueue()
    with pytest.raises(ValueError, match="is wrong"):
        await drain_async()


def test_so_is_what_a_schedule_causes(client: TestClient) -> None:
    ran.append("daily fails")
    with client:
        clock().advance(timedelta(days=1))
        fire_schedules()
        with pytest.raises(ValueError, match="is wrong"):
            drain()


def test_so_is_what_is_raised_after_a_crash(client: TestClient) -> None:
    with crash_at(wrong, "start"), pytest.raises(ValueError, match="is wrong"):
        client.post("/retried/wrong")


def test_the_exception_says_how_retries_are_permitted(client: TestClient) -> None:
    with pytest.raises(ValueError, match="is wrong") as raised:
        client.post("/retried/wrong")
    assert "allow_retries()" in raised.value.__notes__[0]


@pytest.mark.parametrize(("name", "state"), [("later", State.SCHEDULED), ("sleepy", State.SCHEDULED)])
def test_what_asks_to_run_again_does_not_raise(client: TestClient, name: str, state: State) -> None:
    client.post(f"/retried/{name}")
    assert assert_enqueued(FUNCTIONS[name]).state is state


def test_what_cancels_itself_does_not_raise(client: TestClient) -> None:
    client.post("/retried/given_up")
    assert assert_enqueued(given_up).state is State.CANCELLED


def test_what_asked_to_run_again_until_it_failed_raises(client: TestClient) -> None:
    client.post("/retried/later")
    with pytest.raises(RetryAfter):
        drain(scheduled=True)


def test_where_retries_are_permitted_the_drain_runs_them(client: TestClient) -> None:
    with allow_retries():
        client.post("/retried-once")
        assert ran == ["wrong_once"]
        drain(scheduled=True)
    assert ran == ["wrong_once"] * 2
    assert assert_enqueued(wrong_once).state is State.SUCCEEDED


def test_where_retries_are_permitted_the_last_failure_raises(client: TestClient) -> None:
    with allow_retries():
        client.post("/retried/wrong")
        with pytest.raises(ValueError, match="is wrong"):
            drain(scheduled=True)
    assert ran == ["wrong"] * 4


def test_after_the_block_they_are_not_permitted_any_more(client: TestClient) -> None:
    with allow_retries():
        with allow_retries():
            pass
        client.post("/retried/wrong")
    with pytest.raises(ValueError, match="is wrong"):
        client.post("/retried/wrong")


@pytest.mark.afterwards(real=True)
def test_where_a_real_worker_runs_there_is_nothing_to_permit() -> None:
    with pytest.raises(RuntimeError, match="real=True"), allow_retries():
        pass


APPLICATION = """
from afterwards import Afterwards, BackgroundTasks, task
from afterwards.testing import allow_retries
from fastapi import FastAPI
from fastapi.testclient import TestClient

app = FastAPI()
Afterwards(app)

@task(retries=3)
def wrong(): raise ValueError("is wrong")

@app.post("/")
def add(background_tasks: BackgroundTasks): background_tasks.add_task(wrong)

def test_red(): TestClient(app).post("/")

@allow_retries()
def test_green(): TestClient(app).post("/")
"""


def test_an_applications_test_of_a_failing_task_with_retries_is_red(tmp_path: Path) -> None:
    (tmp_path / "test_application.py").write_text(APPLICATION)
    command = [sys.executable, "-m", "pytest", "-q", "test_application.py"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "1 failed, 1 passed" in shown.stdout, shown.stdout
    assert "FAILED test_application.py::test_red" in shown.stdout
