"""In test mode attempts begin in the context in which the worker would have started, as in production."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterwards import Afterwards, BackgroundTasks, FailedTask, task
from afterwards.testing import drain
from testing.application import app

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
seen: list[str] = []


@task
async def look_on_the_loop() -> None:
    _look()


@task
def look_in_a_thread() -> None:
    _look()


def _look() -> None:
    seen.append(tenant.get())
    tenant.set("a task's")


async def told(failed: FailedTask) -> None:
    _look()


@task(on_failure=told)
async def tells_a_function() -> None:
    tenant.set("a task's")
    raise ValueError


@task
async def note(failed: FailedTask) -> None:
    _look()


@task(on_failure=note)
async def tells_a_task() -> None:
    raise ValueError


FUNCTIONS = {one.name: one for one in (look_on_the_loop, look_in_a_thread, tells_a_function, tells_a_task)}


@app.post("/tenant/{name}")
async def act(name: str, background_tasks: BackgroundTasks) -> None:
    _act(name, background_tasks)


def _act(name: str, background_tasks: BackgroundTasks) -> None:
    tenant.set("the request's")
    background_tasks.add_task(FUNCTIONS[name])
    background_tasks.add_task(FUNCTIONS[name])


@pytest.fixture(autouse=True)
def nobody() -> Iterator[None]:
    seen.clear()
    before = tenant.set("nobody")
    yield
    tenant.reset(before)


@pytest.mark.parametrize("name", ["look_on_the_loop", "look_in_a_thread"])
def test_attempts_see_neither_the_request_nor_each_other(name: str) -> None:
    TestClient(app).post(f"/tenant/{name}")
    with TestClient(app) as client:
        client.post(f"/tenant/{name}")
    assert seen == ["nobody"] * 4


@pytest.mark.anyio
async def test_so_it_is_for_an_async_client() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await client.post("/tenant/look_on_the_loop")
    assert seen == ["nobody"] * 2


def test_so_it_is_for_what_is_drained() -> None:
    tenant.set("the test's")
    look_on_the_loop.enqueue_sync()
    drain()
    assert seen == ["nobody"]


@pytest.mark.parametrize("name", ["tells_a_function", "tells_a_task"])
def test_so_it_is_for_on_failure(name: str) -> None:
    with TestClient(app) as client, pytest.raises(ValueError):
        client.post(f"/tenant/{name}")
    assert seen == ["nobody"]


def test_what_was_set_before_the_application_started_is_seen() -> None:
    tenant.set("the test's")
    with TestClient(app) as client:
        tenant.set("set later")
        client.post("/tenant/look_on_the_loop")
        with TestClient(app):
            client.post("/tenant/look_on_the_loop")
        client.post("/tenant/look_on_the_loop")
    client.post("/tenant/look_on_the_loop")
    assert seen == ["the test's"] * 2 + ["set later"] * 2 + ["the test's"] * 2 + ["nobody"] * 2


@asynccontextmanager
async def of_the_lifespan(app: FastAPI) -> AsyncIterator[None]:
    tenant.set("the lifespan's")
    yield


@pytest.mark.parametrize(("options", "expected"), [({}, "the lifespan's"), ({"propagate": [tenant]}, "the request's")])
def test_what_the_lifespan_sets_is_seen_and_what_is_propagated(options: Any, expected: str) -> None:
    other = FastAPI(lifespan=of_the_lifespan)
    Afterwards(other, **options)
    other.post("/tenant/{name}")(act)
    with TestClient(other) as client:
        client.post("/tenant/look_on_the_loop")
    assert seen == [expected] * 2
