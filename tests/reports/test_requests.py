"""Reports on what a request adds: whether it runs, how often, and with what response."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any

import fastapi
import pytest
import starlette.background
from fastapi import Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from websockets.asyncio.client import connect

from afterwards import Afterwards, BackgroundTasks
from face.diary import note, note_in_thread, plain
from face.serving import records, serving, until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    app.state.tasks = Afterwards(app, url)
    return app


def own(text: str) -> starlette.background.BackgroundTask:
    return starlette.background.BackgroundTask(plain, text)


@pytest.mark.parametrize(
    "response",
    [
        lambda: JSONResponse({}, background=own("own")),
        lambda: HTMLResponse("", background=starlette.background.BackgroundTasks([own("own")])),
        lambda: StreamingResponse(iter([b"body"]), background=own("own")),
        lambda: JSONResponse({}, background=fastapi.BackgroundTasks([own("own")])),
    ],
    ids=["task", "tasks", "streamed", "fastapi's"],
)
async def test_a_response_with_a_background_of_its_own_drops_nothing(
    app: FastAPI, said: list[str], response: Callable[[], Response]
) -> None:
    """Tasks that were added to the injected object vanished where the returned response had a background.

    https://github.com/fastapi/fastapi/issues/11215
    """

    def dependency(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "a dependency's")

    @app.get("/", dependencies=[Depends(dependency)])
    async def handler(tasks: BackgroundTasks) -> Response:
        tasks.add_task(note_in_thread, "the handler's")
        return response()

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: len(said) == 3)
    assert [text for text in said if text != "own"] == ["a dependency's", "the handler's"]
    assert said.count("own") == 1


async def test_what_the_exit_of_a_dependency_adds_runs(app: FastAPI, said: list[str]) -> None:
    """The exit code of a dependency with yield added a task, and it never ran.

    https://github.com/fastapi/fastapi/issues/2866
    """

    async def audited(tasks: BackgroundTasks) -> AsyncIterator[None]:
        try:
            yield
        except HTTPException:
            tasks.add_task(note, "refused")
            raise
        tasks.add_task(note, "went well")

    @app.get("/{well}")
    async def handler(well: bool, audit: Annotated[None, Depends(audited)]) -> None:
        if not well:
            raise HTTPException(418)

    async with serving(app) as http:
        assert (await http.get("/true")).status_code == 200
        await until(lambda: said == ["went well"])
        assert (await http.get("/false")).status_code == 418
        await until(lambda: said == ["went well", "refused"])


async def test_a_request_that_fails_stores_what_was_flushed_and_nothing_else(app: FastAPI, said: list[str]) -> None:
    """A task that was added before an HTTPException never ran, and nothing told how to have one that does.

    https://github.com/fastapi/fastapi/issues/1270
    """

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "a new link")
        await tasks.flush()
        tasks.add_task(note, "welcome")
        raise HTTPException(410)

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 410
        await until(lambda: said == ["a new link"])
        assert [task.arguments for task in await records(app.state.tasks)] == ['{"text":"a new link"}']


@pytest.mark.parametrize("path", ["/tasks", "/plain"])
async def test_the_same_call_of_several_requests_runs_for_each_of_them(
    app: FastAPI, said: list[str], path: str
) -> None:
    """A task ran for the first request, and not for later ones with the same parameters.

    https://github.com/fastapi/fastapi/issues/5613
    """

    @app.get("/tasks")
    async def durable(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "ada")

    @app.get("/plain")
    async def in_memory(tasks: BackgroundTasks) -> None:
        tasks.add_task(plain, "ada")

    async with serving(app) as http:
        for number in range(3):
            assert (await http.get(path)).status_code == 200
            await until(lambda number=number: said == ["ada"] * (number + 1))
        await asyncio.gather(*(http.get(path) for _ in range(5)))
        await until(lambda: said == ["ada"] * 8)


async def test_tasks_of_a_websocket_run(app: FastAPI, said: list[str]) -> None:
    """A websocket handler was given background tasks, and they were never run.

    https://github.com/fastapi/fastapi/issues/289
    """

    def dependency(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "a dependency's")

    @app.websocket("/")
    async def handler(websocket: WebSocket, tasks: BackgroundTasks, of: Any = Depends(dependency)) -> None:
        await websocket.accept()
        tasks.add_task(note, "the handler's")

    async with serving(app) as http:
        async with connect(f"ws://127.0.0.1:{http.base_url.port}/", proxy=None):
            pass
        await until(lambda: said == ["a dependency's", "the handler's"])


class Logging(APIRoute):
    """Gives each response a stored task, behind whatever background it has."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def and_log(request: Request) -> Response:
            response = await handle(request)
            behind = BackgroundTasks([response.background] if response.background else [])
            behind.add_task(note, "the route's")
            response.background = behind
            return response

        return and_log


@pytest.mark.parametrize(("path", "expected"), [("/none", []), ("/one", ["the handler's"])])
async def test_a_custom_route_class_can_add_tasks(
    app: FastAPI, said: list[str], path: str, expected: list[str]
) -> None:
    """Nobody found a way to add a task in the handler of a custom route class, which has no injected object.

    https://github.com/fastapi/fastapi/issues/3133
    """
    app.router.route_class = Logging

    @app.get("/none")
    async def without() -> None: ...

    @app.get("/one")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "the handler's")

    async with serving(app) as http:
        assert (await http.get(path)).status_code == 200
        await until(lambda: said == [*expected, "the route's"])


@pytest.mark.parametrize("arguments", [(), ("ada", "hello")])
async def test_the_object_added_to_itself_is_no_silence(
    app: FastAPI, said: list[str], caplog: pytest.LogCaptureFixture, arguments: tuple[str, ...]
) -> None:
    """The object itself was added instead of the function, and nothing happened that anybody noticed.

    https://github.com/fastapi/fastapi/issues/1313
    """

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "stored")
        tasks.add_task(tasks, *arguments)

    async with serving(app) as http:
        await http.get("/", headers={"connection": "close"})  # as the server does after an error
        await until(lambda: [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")])
        assert (await http.get("/openapi.json")).status_code == 200
    assert said in ([], ["stored"])
