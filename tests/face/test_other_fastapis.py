"""FastAPI without what the injection stands on: the installation says so once, and the public way serves."""

import logging

import fastapi.routing
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Response, WebSocket
from fastapi.responses import JSONResponse

from afterwards import Afterwards
from afterwards.engine import Query
from afterwards.web import exit_stacks
from face.diary import note, plain
from face.serving import serving, until
from face.test_websockets import talking

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.fixture
def without_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exit_stacks, "FUNCTION_STACK", "fastapi_of_tomorrow_astack")


@pytest.fixture
def app(url: str, without_the_stack: None) -> FastAPI:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/{text}")
    async def handler(text: str, tasks: BackgroundTasks) -> None:
        tasks.add_task(note, text)
        tasks.add_task(plain, f"plain {text}")

    @app.get("/raises/{status}")
    async def raises(status: int, tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "never")
        raise HTTPException(status)

    @app.get("/returns/{status}")
    async def returns(status: int, tasks: BackgroundTasks) -> Response:
        tasks.add_task(note, f"returned {status}")
        return JSONResponse({}, status)

    return app


async def test_tasks_are_stored_from_the_first_request_on(app: FastAPI, said: list[str]) -> None:
    async with serving(app) as http:
        for text in ("first", "second", "third"):
            assert (await http.get(f"/{text}")).status_code == 200
        await until(lambda: len(said) == 6)
    assert [text for text in said if text.startswith("plain")] == ["plain first", "plain second", "plain third"]


@pytest.mark.parametrize("before", [(), ("/first",)], ids=["the first request", "later"])
async def test_a_handler_that_raises_stores_nothing(app: FastAPI, said: list[str], before: tuple[str, ...]) -> None:
    async with serving(app) as http:
        for path in before:
            await http.get(path)
        assert (await http.get("/raises/409")).status_code == 409
        assert (await http.get("/last")).status_code == 200
        await until(lambda: "last" in said)
    assert "never" not in said


async def test_an_error_that_is_returned_stores_its_tasks(app: FastAPI, said: list[str]) -> None:
    async with serving(app) as http:
        await http.get("/first")
        assert (await http.get("/returns/400")).status_code == 400
        await until(lambda: "returned 400" in said)


@pytest.mark.parametrize("before", [0, 1], ids=["the first request", "later"])
async def test_a_full_queue_is_answered_with_429(url: str, without_the_stack: None, before: int) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url, max_queued=1, worker=False)

    @app.get("/{count}")
    async def handler(count: int, background_tasks: BackgroundTasks) -> None:
        for _ in range(count):
            background_tasks.add_task(note, "hello")

    async with serving(app) as http:
        for _ in range(before):
            assert (await http.get("/0")).status_code == 200
        assert (await http.get("/2")).status_code == 429
        assert await (await tasks.client.open()).find(Query()) == []


async def test_a_websockets_tasks_are_stored(app: FastAPI, said: list[str]) -> None:
    @app.websocket("/")
    async def talks(websocket: WebSocket, tasks: BackgroundTasks) -> None:
        await websocket.accept()
        tasks.add_task(note, "hello")
        tasks.add_task(plain, "plain")
        await websocket.close()

    async with serving(app) as http:
        await http.get("/first")
        async with talking(http):
            await until(lambda: {"hello", "plain"} <= set(said))


@pytest.fixture
def without_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(fastapi.routing, "iter_route_contexts"):
        pytest.skip("this FastAPI copies the routes of included routers, and shows them by themselves")
    monkeypatch.delattr(fastapi.routing, "iter_route_contexts")


async def test_where_routes_cannot_be_found_those_added_later_store_tasks(
    url: str, said: list[str], without_contexts: None, caplog: pytest.LogCaptureFixture
) -> None:
    app, router = FastAPI(), APIRouter()
    Afterwards(app, url)

    @app.get("/")
    @router.get("/included")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "hello")

    app.include_router(router)
    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        assert (await http.get("/included")).status_code == 200
        await until(lambda: said == ["hello", "hello"])
    assert not [record for record in caplog.records if record.levelno == logging.WARNING and "lost" in record.message]
