"""Plain functions: as FastAPI runs them, and better where FastAPI is at its worst."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any

import fastapi
import pytest
import starlette.background
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute

from afterwards import Afterwards, BackgroundTasks, State
from afterwards.core.task import Task
from afterwards.engine import Query
from face.diary import note, plain, plain_in_thread
from face.diary import said as the_diary
from face.serving import serving, until, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


async def stored(tasks: Afterwards) -> list[Task]:
    return await (await tasks.client.open()).find(Query())


def broken(text: str) -> None:
    the_diary.append(text)
    raise LookupError(f"{text} is broken")


async def test_sixty_sleeping_tasks_delay_no_sync_endpoint(url: str) -> None:
    app = FastAPI()
    Afterwards(app, url)
    release = threading.Event()

    @app.get("/busy")
    async def busy(tasks: BackgroundTasks) -> None:
        for _ in range(2):
            tasks.add_task(release.wait, 30)

    @app.get("/")
    def endpoint() -> str:
        return "quick"

    async with serving(app) as http:
        await asyncio.gather(*(http.get("/busy") for _ in range(60)))
        try:
            assert (await http.get("/")).json() == "quick"
        finally:
            release.set()


async def test_they_run_in_the_order_added_and_after_the_response(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url)
    answered = asyncio.Event()

    async def wait_for_the_answer() -> None:
        await asyncio.wait_for(answered.wait(), 5)
        said.append("answered")

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(wait_for_the_answer)
        tasks.add_task(plain_in_thread, "sync")
        tasks.add_task(plain, text="async")

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        answered.set()
        await until(lambda: said == ["answered", "sync", "async"])


@pytest.mark.parametrize("own", ["task", "tasks", "none"])
async def test_they_run_although_the_response_has_a_background_of_its_own(url: str, said: list[str], own: str) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> Response:
        tasks.add_task(plain, "injected")
        backgrounds: dict[str, Any] = {
            "task": starlette.background.BackgroundTask(plain, "own"),
            "tasks": starlette.background.BackgroundTasks([starlette.background.BackgroundTask(plain, "own")]),
            "none": None,
        }
        return JSONResponse({}, background=backgrounds[own])

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: "injected" in said)
    assert said == (["injected"] if own == "none" else ["own", "injected"])


async def test_each_runs_once_when_the_response_is_given_the_injected_object(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> Response:
        tasks.add_task(plain, "plain")
        tasks.add_task(note, "durable")
        return JSONResponse({}, background=tasks)

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: len(said) >= 2)
    assert sorted(said) == ["durable", "plain"]


async def test_a_failure_is_recorded_with_its_traceback(url: str, said: list[str]) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.get("/path")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(broken, "lamp")
        background_tasks.add_task(plain, "not after a failure")

    async with serving(app) as http:
        assert (await http.get("/path")).status_code == 200
        [listed] = await until_async(lambda: stored(tasks))
        [record] = await (await tasks.client.open()).get([listed.id])
    assert (record.name, record.state, record.plain, record.origin) == ("broken", State.FAILED, True, "GET /path")
    [failure] = record.failures
    assert (failure.type, failure.message) == ("LookupError", "lamp is broken")
    assert "in broken" in failure.traceback  # which a list leaves out
    assert said == ["lamp"]


async def test_a_failure_within_wrapped_tasks_is_recorded_once_and_under_its_own_name(url: str) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.get("/")
    async def handler() -> Response:
        inner = BackgroundTasks([starlette.background.BackgroundTask(broken, "lamp")])
        return Response(background=BackgroundTasks([inner]))

    async with serving(app) as http:
        await http.get("/")
        await until_async(lambda: stored(tasks))
        assert [record.name for record in await stored(tasks)] == ["broken"]


@pytest.mark.parametrize("function", [lambda: 1 / 0, {}.__getitem__])
async def test_a_failure_of_something_without_a_proper_name_is_recorded(url: str, function: Callable[..., Any]) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(function, *([] if function.__name__ == "<lambda>" else ["x"]))

    async with serving(app) as http:
        await http.get("/")
        [record] = await until_async(lambda: stored(tasks))
    assert record.state is State.FAILED


async def test_success_leaves_no_record(url: str, said: list[str]) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(plain, "fine")

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: said)
        assert await stored(tasks) == []


async def test_concurrency_limits_them(url: str) -> None:
    app = FastAPI()
    Afterwards(app, url, concurrency=5)
    running = most = ended = 0

    async def work() -> None:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        ended += 1

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(work)

    async with serving(app) as http:
        await asyncio.gather(*(http.get("/") for _ in range(20)))
        await until(lambda: ended == 20)
    assert most == 5


async def test_without_concurrency_nothing_limits_them(url: str) -> None:
    app = FastAPI()
    Afterwards(app, url)
    running = 0
    all_here = asyncio.Event()

    async def work() -> None:
        nonlocal running
        running += 1
        if running == 40:
            all_here.set()
        await asyncio.wait_for(all_here.wait(), 5)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(work)

    async with serving(app) as http:
        await asyncio.gather(*(http.get("/") for _ in range(40)))
        await until(all_here.is_set)


async def test_concurrency_of_one_lets_wrapped_tasks_through(url: str, said: list[str]) -> None:
    """Middleware often wraps what a response already has, so that tasks run within tasks."""
    app = FastAPI()
    Afterwards(app, url, concurrency=1)

    @app.get("/")
    async def handler() -> Response:
        inner = BackgroundTasks()
        inner.add_task(plain, "inner")
        inner.add_task(plain_in_thread, "inner in a thread")
        outer = BackgroundTasks([inner])
        outer.add_task(plain, "outer")
        outer.add_task(starlette.background.BackgroundTasks([inner]))
        return Response(background=outer)

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: len(said) == 5)
    assert said == ["inner", "inner in a thread", "outer", "inner", "inner in a thread"]


async def test_live_objects_and_whatever_the_request_holds_can_be_arguments(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url)

    async def use(request: Request, lock: Any, callback: Callable[[str], None]) -> None:
        async with lock:
            callback(request.url.path)

    @app.get("/path")
    async def handler(request: Request, tasks: BackgroundTasks) -> None:
        tasks.add_task(use, request, asyncio.Lock(), said.append)

    async with serving(app) as http:
        await http.get("/path")
        await until(lambda: said == ["/path"])


async def test_those_added_while_a_response_streams_run_after_it(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> Response:
        async def body() -> Any:
            yield b"one"
            tasks.add_task(plain, "late")
            yield b"two"
            said.append("streamed")

        return StreamingResponse(body())

    async with serving(app) as http:
        assert (await http.get("/")).text == "onetwo"
        await until(lambda: said == ["streamed", "late"])


@pytest.mark.parametrize("path", ["/with", "/without"])
async def test_those_that_the_exit_of_a_dependency_adds_run(url: str, said: list[str], path: str) -> None:
    app = FastAPI()
    Afterwards(app, url)

    async def resource(tasks: BackgroundTasks) -> AsyncIterator[None]:
        yield
        tasks.add_task(plain, "exit")

    @app.get("/with")
    async def with_another(tasks: BackgroundTasks, resource: Annotated[None, Depends(resource)]) -> None:
        tasks.add_task(plain, "handler")

    @app.get("/without")
    async def without(resource: Annotated[None, Depends(resource)]) -> None: ...

    async with serving(app) as http:
        await http.get(path)
        await until(lambda: "exit" in said)
    assert said == (["handler", "exit"] if path == "/with" else ["exit"])


async def test_a_request_that_mixes_both_kinds_warns_once(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/mixed-once")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "durable")
        tasks.add_task(plain, "plain")

    async with serving(app) as http:
        await http.get("/mixed-once")
        await http.get("/mixed-once")
        await until(lambda: len(said) == 4)
    assert said.index("plain") < said.index("durable")
    assert [
        record.levelname
        for record in caplog.records
        if "/mixed-once" in record.message and "plain and @task" in record.message
    ] == ["WARNING"]


class AddsBehind(APIRoute):
    """Adds a task of its own to each response, as custom route classes do to write logs."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def and_add(request: Request) -> Response:
            response = await handle(request)
            background: Any = response.background
            if background is None:
                response.background = starlette.background.BackgroundTask(plain, "route's")
            elif request.url.path == "/copied":
                behind = starlette.background.BackgroundTask(plain, "route's")
                response.background = starlette.background.BackgroundTasks([*background.tasks, behind])
            else:
                background.add_task(plain, "route's")
            return response

        return and_add


@pytest.mark.parametrize("path", ["/", "/copied", "/after-a-dependency", "/by-hand", "/emptied"])
async def test_what_a_custom_route_adds_runs_after_what_the_handler_has_added(
    url: str, said: list[str], path: str
) -> None:
    app = FastAPI()
    Afterwards(app, url)
    app.router.route_class = AddsBehind

    async def dependency(tasks: fastapi.BackgroundTasks) -> AsyncIterator[None]:
        tasks.add_task(plain, "dependency's")
        yield
        said.append("closed")

    @app.get("/")
    @app.get("/copied")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(plain, "handler's")
        tasks.add_task(plain_in_thread, "handler's second")

    def native(tasks: fastapi.BackgroundTasks) -> fastapi.BackgroundTasks:
        return tasks

    @app.get("/after-a-dependency", dependencies=[Depends(dependency)])
    async def between(tasks: BackgroundTasks, native: Annotated[Any, Depends(native)]) -> None:
        tasks.add_task(plain, "handler's")
        native.add_task(plain, "handler's native")
        tasks.add_task(plain_in_thread, "handler's second")

    @app.get("/by-hand")
    async def by_hand(tasks: BackgroundTasks) -> None:
        tasks.add_task(plain_in_thread, "handler's second")
        tasks.tasks.append(starlette.background.BackgroundTask(plain, "handler's third"))
        tasks.tasks.insert(0, starlette.background.BackgroundTask(plain, "handler's"))

    @app.get("/emptied")
    async def emptied(tasks: BackgroundTasks) -> None:
        tasks.add_task(plain, "handler's")
        tasks.tasks.clear()

    expected = {
        "/after-a-dependency": ["dependency's", "handler's", "handler's native", "handler's second"],
        "/by-hand": ["handler's", "handler's second", "handler's third"],
        "/emptied": [],
    }
    async with serving(app) as http:
        assert (await http.get(path)).status_code == 200
        await until(lambda: "route's" in said)
        await until(lambda: path != "/after-a-dependency" or "closed" in said)
    said = [text for text in said if text != "closed"]
    assert said == [*expected.get(path, ["handler's", "handler's second"]), "route's"]


async def test_a_dependency_with_fastapis_own_class_keeps_its_place(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url)

    def first(tasks: BackgroundTasks) -> None:
        tasks.add_task(plain, "1")

    def second(native: fastapi.BackgroundTasks, before: Annotated[None, Depends(first)]) -> None:
        native.add_task(plain, "2")

    @app.get("/", dependencies=[Depends(second)])
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(plain, "3")

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: "3" in said)
    assert said == ["1", "2", "3"]
