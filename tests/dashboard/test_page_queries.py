"""Each page asks the store as often for very many tasks as for a few."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import Depends, FastAPI

from afterwards import Access, Afterwards, engines
from afterwards.core.task import NewTask
from afterwards.engine import Engine
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.engines.sqlite.io import schema
from afterwards.engines.sqlite.io.connection import OwnConnection
from face.serving import serving

pytestmark = pytest.mark.anyio

MANY = 20_000

MOST = {"": 90, "/queues": 10, "/tasks": 10, "/tasks?name=greet&since=1h": 40, "/workers": 15, "/schedules": 10}
"""Statements of each page, with those that begin and end transactions, for tasks in seven queues."""

READING_ALL = MANY // 2000
"""Statements of a search for text: an engine reads all tasks, in pieces, and so only once."""

OTHERS = 3
"""Statements that the process may execute for itself meanwhile."""


class Counted:
    """The number of statements that the database was asked to execute."""

    number = 0


class CountingConnection(OwnConnection):
    """Counts each statement."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_trace_callback(self.count)

    def count(self, statement: str) -> None:
        Counted.number += 1


@pytest.fixture
async def http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[httpx.AsyncClient, Engine]]:
    monkeypatch.setattr(schema, "OwnConnection", CountingConnection)

    def made(url: str) -> Engine:
        return SQLiteEngine(tmp_path / "tasks.db")

    with engines.replaced(made):
        app = FastAPI()
        tasks = Afterwards(app, worker=False, dashboard="/ops", auth=Depends(lambda: Access.ACT))
        async with serving(app) as client:
            yield client, await tasks.client.open()


async def _store(engine: Engine, count: int) -> None:
    for start in range(0, count, 5000):
        await engine.enqueue(
            [
                NewTask(id=str(uuid4()), name="greet", arguments=json.dumps({"n": number}), queue=f"queue-{number % 7}")
                for number in range(start, min(count, start + 5000))
            ]
        )


async def _asked(http: httpx.AsyncClient) -> dict[str, int]:
    """Return how many statements each page takes."""
    asked = {}
    for path in MOST:
        before = Counted.number
        (await http.get(f"/ops{path}")).raise_for_status()
        asked[path] = Counted.number - before
    return asked


async def test_the_number_of_statements_does_not_grow(http: tuple[httpx.AsyncClient, Engine]) -> None:
    client, engine = http
    await _store(engine, 700)
    await _asked(client)  # opens what is opened once
    few = await _asked(client)
    await _store(engine, MANY)
    many = await _asked(client)
    assert {path: (few[path], asked) for path, asked in many.items() if asked > few[path] + OTHERS} == {}
    assert {path: asked for path, asked in many.items() if asked > MOST[path]} == {}
    before = Counted.number
    (await client.get("/ops/tasks?text=nothing+has+this")).raise_for_status()
    assert Counted.number - before <= READING_ALL + OTHERS
    assert (await client.get("/ops/tasks")).text.count("<tr data-row>") == 50
