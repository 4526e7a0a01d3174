"""Reports on tests of applications: what a client of theirs sees of the tasks."""

import contextlib

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.middleware.base import BaseHTTPMiddleware

from afterwards import Afterwards, BackgroundTasks
from afterwards.testing import assert_enqueued, drain
from face.diary import fail, note, plain

app = FastAPI()
Afterwards(app, "sqlite:///must-not-appear.db")


async def pass_on(request, call_next):  # type: ignore[no-untyped-def]
    return await call_next(request)


app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)


@app.get("/note/{text}")
async def add_note(text: str, tasks: BackgroundTasks) -> None:
    tasks.add_task(note, text)
    tasks.add_task(plain, f"plain {text}")


@app.get("/fail")
async def add_failure(tasks: BackgroundTasks) -> None:
    tasks.add_task(fail, "on purpose")


@app.get("/later")
async def add_later(tasks: BackgroundTasks) -> None:
    tasks.add_task(note.options(delay=3600), "later")


def test_what_a_task_raises_is_raised_into_the_test_through_any_middleware(said: list[str]) -> None:
    """With a BaseHTTPMiddleware the exceptions of background tasks were swallowed, and tests stayed green.

    https://github.com/Kludex/starlette/pull/2696
    """
    with pytest.raises(ValueError, match="on purpose"):
        TestClient(app).get("/fail")
    assert said == ["on purpose"]


def test_no_test_waits_for_what_is_due_later(said: list[str]) -> None:
    """A test client waited for background tasks that the test did not care about, however long they took.

    https://github.com/Kludex/starlette/issues/533
    """
    assert TestClient(app).get("/later").status_code == 200
    assert said == []
    assert_enqueued(note, text="later", delay=3600)
    drain(scheduled=True)
    assert said == ["later"]


@pytest.mark.anyio
async def test_an_asynchronous_client_finds_the_tasks_done_without_a_lifespan(said: list[str]) -> None:
    """Tests with an asynchronous client ran no lifespan, and what it starts was missing.

    https://github.com/fractal-analytics-platform/fractal-server/issues/1002
    """
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/note/one")).status_code == 200
        assert said == ["plain one", "one"]
        with contextlib.suppress(ValueError):
            await client.get("/fail")
        assert (await client.get("/note/two")).status_code == 200
    assert said == ["plain one", "one", "on purpose", "plain two", "two"]
