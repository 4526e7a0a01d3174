"""A test sees what an ``on_failure`` raises, also where it expects the exception of the attempt."""

import pytest
from fastapi.testclient import TestClient

from afterwards import BackgroundTasks, FailedTask, task
from afterwards.testing import allow_retries, crash_at, drain
from testing.application import app


async def on_the_loop(failed: FailedTask) -> None:
    raise LookupError("nobody to tell")


def in_a_thread(failed: FailedTask) -> None:
    raise LookupError("nobody to tell")


@task(on_failure=on_the_loop)
async def tells_on_the_loop() -> None:
    raise ValueError("is wrong")


@task(on_failure=in_a_thread, retries=1)
def tells_in_a_thread() -> None:
    raise ValueError("is wrong")


FUNCTIONS = {one.name: one for one in (tells_on_the_loop, tells_in_a_thread)}


@app.post("/tells/{name}")
def tell(name: str, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(FUNCTIONS[name])


@pytest.fixture
def client() -> TestClient:
    return TestClient(app)


def test_what_on_failure_raises_is_raised_although_the_attempt_raised_before(client: TestClient) -> None:
    with pytest.raises(LookupError, match="nobody to tell") as raised:
        client.post("/tells/tells_on_the_loop")
    assert "the on_failure function of tells_on_the_loop" in raised.value.__notes__[0]
    assert "is wrong" in raised.value.__notes__[0]


def test_so_it_is_after_retries(client: TestClient) -> None:
    with allow_retries():
        client.post("/tells/tells_in_a_thread")
        with pytest.raises(LookupError, match="nobody to tell"):
            drain(scheduled=True)


def test_so_it_is_after_crashes(client: TestClient) -> None:
    with crash_at(tells_on_the_loop, "start", times=4), pytest.raises(LookupError, match="nobody to tell"):
        client.post("/tells/tells_on_the_loop")
