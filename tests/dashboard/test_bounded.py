"""A request asks the store a bounded number of times, however many tasks there are."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from afterwards import Afterwards, engines
from afterwards.engine import Engine
from afterwards.engines.sqlite import SQLiteEngine
from dashboard.fixtures import ACT, add, admin
from face.serving import serving

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

MOST = 8
"""Calls of the engine that a page or an answer may need."""

PATHS = ["", "/tasks", "/tasks?queue=default&text=add", "/queues", "/schedules", "/workers"]
PATHS += [f"/api/{path}" for path in ("tasks?limit=100", "count?name=add", "stats", "throughput?span=7d", "queues")]
PATHS += [f"/api/{path}" for path in ("paused", "schedules", "workers", "openapi.json")]


class Counted:
    """A real engine of which each call is counted."""

    def __init__(self, engine: Engine) -> None:
        self.calls: Counter[str] = Counter()
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self._engine, name)

    async def __aenter__(self) -> Any:
        await self._engine.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._engine.__aexit__(*error)


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    engine = Counted(SQLiteEngine(tmp_path / "tasks.db"))
    with engines.replaced(lambda url: engine):  # type: ignore[arg-type, return-value]  # every method by __getattr__
        yield engine


async def calls_of(http: httpx.AsyncClient, engine: Counted, method: str, path: str, body: Any = None) -> Counter[str]:
    engine.calls.clear()
    answer = await http.request(method, f"/afterwards{path}", json=body, headers=ACT, follow_redirects=True)
    assert answer.status_code == 200, (path, answer.text)
    return Counter(engine.calls)


async def test_a_request_asks_the_store_a_bounded_number_of_times(counted: Counted) -> None:
    app = FastAPI()
    tasks = Afterwards(app, "sqlite:///tasks.db", dashboard="/afterwards", auth=Depends(admin), worker=False)
    async with serving(app) as http:
        handles = await tasks.enqueue_many([add.call(1, other=2)])
        few = {path: await calls_of(http, counted, "GET", path) for path in [*PATHS, f"/tasks/{handles[0].id}"]}
        await tasks.enqueue_many([add.call(1, other=2) for _ in range(2000)])
        many = {path: await calls_of(http, counted, "GET", path) for path in few}
        assert many == few
        assert {path: calls.total() for path, calls in many.items() if calls.total() > MOST} == {}
        two_hundred = await calls_of(http, counted, "GET", "/api/tasks?limit=200")
        assert two_hundred == {"find": 2}  # a hundred at once, because each may be large
        changed = await calls_of(http, counted, "POST", "/api/tasks/cancel", {"filter": {"all": True}})
        # 1000 are found at once, and looked for below the last one; 500 are changed at once.
        assert changed == {"find": 4, "get": 1, "cancel": 5}
