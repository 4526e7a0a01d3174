"""An application's own tests, as they were written for FastAPI's BackgroundTasks."""

from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, Request
from fastapi.testclient import TestClient

from afterwards import BackgroundTasks, Snooze, task
from afterwards.testing import allow_retries, assert_enqueued, drain, drain_async
from testing.application import app, tasks

sent: list[str] = []


def sender(request: Request) -> str:
    return getattr(request.state, "sender", "nobody")


@task
async def welcome(email: str, by: Annotated[str, Depends(sender)] = "") -> str:
    sent.append(f"{email} by {by}")
    return email.upper()


@task(retries=1)
def flaky(email: str) -> None:
    sent.append(f"try {email}")
    if sent.count(f"try {email}") < 2:
        raise ConnectionError("the server is away")


@task
def broken(email: str) -> None:
    raise ValueError(f"{email} is no address")


@task
async def orders(count: int) -> None:
    for n in range(count):
        await welcome.enqueue(f"{n}@example.org")


@app.post("/signup/{email}")
async def signup(email: str, background_tasks: BackgroundTasks) -> dict[str, str]:
    handle = background_tasks.add_task(welcome, email)
    return {"id": handle.id}


@app.post("/many/{function}/{email}")
def many(function: str, email: str, background_tasks: BackgroundTasks) -> None:
    if function == "flaky":
        background_tasks.add_task(flaky, email)
    elif function == "broken":
        background_tasks.add_task(broken, email)
    background_tasks.add_task(welcome, email)


@app.post("/later/{email}")
async def later(email: str, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(welcome.options(delay=3600), email)


@app.post("/orders/{count}")
async def order(count: int) -> None:
    await orders.enqueue(count)


@task
async def forever() -> None:
    raise Snooze(30)


@app.post("/forever")
async def begin(background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(forever)


@app.get("/tasks/{id}")
async def status(id: str) -> str:
    return str((await (await tasks.get(id)).status()).state)


@pytest.fixture(autouse=True)
def nothing_sent() -> None:
    sent.clear()


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(app)


def test_a_request_returns_after_its_tasks_have_run_without_a_lifespan(client: TestClient) -> None:
    assert client.post("/signup/a@example.org").status_code == 200
    assert sent == ["a@example.org by nobody"]


def test_a_request_returns_after_its_tasks_have_run_within_a_lifespan() -> None:
    with TestClient(app) as client:
        client.post("/signup/a@example.org")
    assert sent == ["a@example.org by lifespan@example.org"]


@pytest.mark.anyio
async def test_a_request_of_an_async_client_returns_after_its_tasks_have_run() -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.post("/signup/a@example.org")
    assert sent == ["a@example.org by nobody"]


def test_a_task_can_be_asked_about_in_a_later_request(client: TestClient) -> None:
    id = client.post("/signup/a@example.org").json()["id"]
    assert client.get(f"/tasks/{id}").json() == "succeeded"


def test_no_file_appears(client: TestClient) -> None:
    client.post("/signup/a@example.org")
    assert not Path("must-not-appear.db").exists()


def test_the_tasks_of_one_test_are_not_those_of_another(client: TestClient) -> None:
    with pytest.raises(AssertionError, match="its calls: none"):
        assert_enqueued(welcome)


def test_a_task_that_fails_for_good_raises_into_the_test(client: TestClient) -> None:
    with pytest.raises(ValueError, match="is no address"):
        client.post("/many/broken/a@example.org")
    assert sent == []  # the task behind it was cancelled


def test_a_failing_task_leaves_the_response_alone() -> None:
    client = TestClient(app, raise_server_exceptions=False)
    assert client.post("/many/broken/a@example.org").status_code == 200


def test_a_retry_waits_until_it_is_drained(client: TestClient) -> None:
    with allow_retries():
        client.post("/many/flaky/a@example.org")
        assert sent == ["try a@example.org"]
        drain()
        assert sent == ["try a@example.org"]
        drain(scheduled=True)
    assert sent == ["try a@example.org"] * 2 + ["a@example.org by nobody"]


@pytest.mark.anyio
async def test_what_is_delayed_waits_until_it_is_drained() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await client.post("/later/a@example.org")
    assert sent == []
    await drain_async(scheduled=True)
    assert sent == ["a@example.org by nobody"]


def test_what_no_request_has_added_is_drained_too() -> None:
    welcome.enqueue_sync("a@example.org")
    assert sent == []
    drain()
    assert sent == ["a@example.org by nobody"]


def test_a_task_that_never_ends_is_named(client: TestClient) -> None:
    client.post("/forever")
    with pytest.raises(RuntimeError, match="task forever has run 200 times"):
        drain(scheduled=True)


@pytest.mark.anyio
async def test_an_async_test_is_told_what_to_write() -> None:
    with pytest.raises(RuntimeError, match="await drain_async"):
        drain()


def test_lifespans_nest(client: TestClient) -> None:
    """As where a fixture of a module has one, and a test one of its own."""
    with TestClient(app):
        with TestClient(app):
            pass
        client.post("/signup/a@example.org")
    assert sent == ["a@example.org by lifespan@example.org"]


def test_what_tasks_enqueue_runs_too(client: TestClient) -> None:
    client.post("/orders/2")
    assert sent == ["0@example.org by nobody", "1@example.org by nobody"]


def test_a_stored_call_is_found_by_its_arguments(client: TestClient) -> None:
    client.post("/later/a@example.org")
    assert assert_enqueued(welcome, email="a@example.org").name == "welcome"
    with pytest.raises(AssertionError, match=r"a@example\.org"):
        assert_enqueued(welcome, email="b@example.org")
