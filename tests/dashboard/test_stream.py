"""The live stream: what it tells, to whom, and its end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from afterwards import Access, Afterwards
from afterwards.dashboard import stream
from afterwards.web import live
from dashboard.fixtures import ACT, READ, House, add
from face.serving import finished, serving

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

UNKNOWN = "0197e6b2-0000-7000-8000-000000000000"


@asynccontextmanager
async def following(http: httpx.AsyncClient, path: str = "/afterwards/api/stream") -> AsyncIterator[Any]:
    """The events of a stream, each a name and a value."""
    async with http.stream("GET", path, headers=READ) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["content-security-policy"]
        yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async for line in answer.aiter_lines():
        field, _, text = line.partition(": ")
        if field == "event":
            name = text
        if field == "data":
            yield name, json.loads(text)


async def until(events: Any, true: Any) -> Any:
    async with asyncio.timeout(30):
        async for name, value in events:
            if true(value):
                return name, value
    raise AssertionError("the stream ended")


async def test_changes_are_told(house: House) -> None:
    async with following(house.http) as events:
        await until(events, lambda value: sum(value["states"].values()) == 0)
        handle = await add.enqueue(1, other=2)
        name, value = await until(events, lambda value: value["states"]["succeeded"] == 1)
    assert name == "change"
    assert value["tasks"] == [{"id": handle.id, "name": "add", "queue": "default", "state": "succeeded", "attempt": 1}]


async def test_one_task_is_followed_also_through_a_requeue(house: House) -> None:
    handle = await add.enqueue(1, other=2)
    await finished(handle)
    async with following(house.http, f"/afterwards/api/stream?task={handle.id}") as events:
        name, value = await until(events, lambda value: value["state"] == "succeeded")
        assert (name, value["result"]) == ("task", 3)
        await house.http.post("/afterwards/api/tasks/requeue", json={"ids": [handle.id]}, headers=ACT)
        await until(events, lambda value: value["attempt"] == 2 and value["state"] == "succeeded")


@pytest.mark.parametrize(("task", "status"), [(UNKNOWN, 404), ("nothing", 422)])
async def test_an_unknown_task_is_not_followed(http: httpx.AsyncClient, task: str, status: int) -> None:
    answer = await http.get(f"/afterwards/api/stream?task={task}", headers=READ)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")


async def test_it_ends_after_a_while_so_that_the_dependency_decides_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LONGEST", 0.1)
    async with following(house.http) as events, asyncio.timeout(30):
        async for _ in events:
            pass


async def test_a_shutdown_does_not_wait_for_it(store: str) -> None:
    app = FastAPI()
    tasks = Afterwards(app, store, dashboard="/afterwards", auth=lambda: Access.READ)
    async with serving(app) as http, following(http) as events:
        await anext(events)
        live.end(tasks.client)  # as at the signal
        async with asyncio.timeout(30):
            async for _ in events:
                pass


async def test_what_the_dependency_has_opened_is_closed_meanwhile(store: str) -> None:
    """A session of the database for each open page would soon be all that the pool has."""
    opened: list[str] = []

    async def session() -> AsyncIterator[Access]:
        opened.append("session")
        yield Access.READ
        opened.clear()

    app = FastAPI()
    Afterwards(app, store, dashboard="/afterwards", auth=Depends(session))
    async with serving(app) as http, following(http) as events:
        await anext(events)
        assert opened == []
