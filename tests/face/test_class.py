"""``BackgroundTasks`` as the class that it looks like: constructed, subclassed, given to a response by hand."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import fastapi
import pytest
import starlette.background
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from afterwards import Afterwards, BackgroundTasks, task
from face.diary import note, note_in_thread, plain, plain_in_thread
from face.diary import said as the_diary
from face.processes import output
from face.serving import serving, until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

Next = Callable[[Request], Awaitable[Response]]


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    Afterwards(app, url)
    return app


def test_it_is_constructed_without_arguments_and_with_a_list() -> None:
    task = starlette.background.BackgroundTask(plain, "hello")
    assert BackgroundTasks().tasks == []
    assert len(BackgroundTasks([task]).tasks) == len(BackgroundTasks(tasks=[task]).tasks) == 1


def test_a_task_given_in_a_list_is_listed_as_it_was_made() -> None:
    [task] = BackgroundTasks([starlette.background.BackgroundTask(plain, text="hello")]).tasks
    assert (task.func, task.args, task.kwargs, task.is_async) == (plain, (), {"text": "hello"}, True)


def test_isinstance_and_issubclass_hold_for_all_of_the_family() -> None:
    tasks = BackgroundTasks()
    assert isinstance(tasks, BackgroundTasks)
    assert isinstance(tasks, fastapi.BackgroundTasks)
    assert isinstance(tasks, starlette.background.BackgroundTasks)
    assert issubclass(type(tasks), BackgroundTasks)
    assert not isinstance(fastapi.BackgroundTasks(), BackgroundTasks)
    assert not issubclass(fastapi.BackgroundTasks, BackgroundTasks)


def test_it_can_be_subclassed() -> None:
    class Mine(BackgroundTasks):
        def add_twice(self, text: str) -> None:
            self.add_task(plain, text)
            self.add_task(plain, text)

    mine = Mine()
    mine.add_twice("hello")
    assert len(mine.tasks) == 2
    assert isinstance(mine, BackgroundTasks)
    assert issubclass(Mine, BackgroundTasks)


async def test_plain_functions_run_without_an_installation(said: list[str]) -> None:
    app = FastAPI()

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> str:
        tasks.add_task(plain, "async")
        tasks.add_task(plain_in_thread, text="sync")
        said.append("handled")
        return "done"

    async with serving(app) as http:
        assert (await http.get("/")).json() == "done"
        await until(lambda: said == ["handled", "async", "sync"])


def test_a_task_function_without_an_installation_is_told_of_with_the_missing_line(tmp_path: Path) -> None:
    told = output(
        """
        import sys
        from fastapi import FastAPI
        from fastapi.testclient import TestClient
        from afterwards import BackgroundTasks, NotInstalled, task

        @task
        async def note(text: str) -> None: ...

        app = FastAPI()

        @app.get("/")
        async def handler(tasks: BackgroundTasks) -> None:
            tasks.add_task(note, "hello")

        sys.stderr = sys.stdout
        print(TestClient(app).get("/").status_code)
        try:
            BackgroundTasks().add_task(note, "hello")
        except NotInstalled:
            print("and one made by hand refuses it")
        """,
        tmp_path,
    )
    assert "'note'" in told
    assert "tasks = Afterwards(app)" in told
    assert "and one made by hand refuses it" in told


async def test_a_call_that_is_prepared_in_part_is_stored_too(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> str:
        return tasks.add_task(partial(note, text="partly")).id

    async with serving(app) as http:
        assert len((await http.get("/")).json()) == 36
        await until(lambda: said == ["partly"])


async def test_an_installation_elsewhere_stores_nothing_for_this_application(url: str, said: list[str]) -> None:
    """Nobody would publish it: the end of a request is known to an application's own installation only."""
    app, sub = FastAPI(), FastAPI()
    tasks = Afterwards(sub, url)
    app.mount("/sub", sub)

    @app.get("/")
    @sub.get("/")
    async def handler(background_tasks: BackgroundTasks) -> str:
        handle = background_tasks.add_task(note, "hello")
        return "stored" if handle else "not stored"

    async with serving(app) as http:
        assert (await http.get("/")).json() == "not stored"
        assert (await http.get("/sub/")).json() == "stored"
        await until(lambda: said == ["hello", "hello"])
    await tasks.client.close()


async def test_it_can_be_called_like_starlettes(said: list[str]) -> None:
    tasks = BackgroundTasks([starlette.background.BackgroundTask(plain, "first")])
    tasks.add_task(plain_in_thread, "second")
    await tasks()
    assert said == ["first", "second"]


async def test_tasks_lists_what_was_added_in_order(app: FastAPI, said: list[str]) -> None:
    listed: list[tuple[Any, ...]] = []

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "durable")
        tasks.add_task(plain, text="plain")
        tasks.add_task(note_in_thread, "durable in a thread")
        listed.extend((task.func, task.args, task.kwargs, task.is_async) for task in tasks.tasks)

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: len(said) == 3)
    assert listed == [
        (note, ("durable",), {}, True),
        (plain, (), {"text": "plain"}, True),
        (note_in_thread, ("durable in a thread",), {}, False),
    ]


async def test_starlettes_task_put_into_the_list_by_hand_runs(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.tasks.append(starlette.background.BackgroundTask(plain, "plain"))
        tasks.tasks.append(starlette.background.BackgroundTask(note, "durable"))

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: sorted(said) == ["durable", "plain"])


async def test_a_task_taken_out_of_the_list_does_not_run(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "never")
        tasks.add_task(plain, "never")
        tasks.tasks.clear()
        tasks.add_task(note, "hello")

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: said)
    assert said == ["hello"]


async def test_one_made_in_middleware_stores_and_runs(app: FastAPI, said: list[str]) -> None:
    @app.middleware("http")
    async def middleware(request: Request, call_next: Next) -> Response:
        response = await call_next(request)
        response.background = BackgroundTasks()
        response.background.add_task(note, "durable")
        response.background.add_task(plain, "plain")
        return response

    @app.get("/")
    async def handler() -> None: ...

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: sorted(said) == ["durable", "plain"])


async def test_one_made_in_middleware_can_be_stored_before_the_response(app: FastAPI, said: list[str]) -> None:
    @app.middleware("http")
    async def middleware(request: Request, call_next: Next) -> Response:
        tasks = BackgroundTasks()
        handle = tasks.add_task(note, "hello")
        await tasks.flush()
        response = await call_next(request)
        response.headers["task"] = (await handle.status()).name
        return response

    @app.get("/")
    async def handler() -> None: ...

    async with serving(app) as http:
        assert (await http.get("/")).headers["task"] == "note"
        await until(lambda: said == ["hello"])


async def test_one_given_to_a_response_stores_and_runs_after_the_injected_ones(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(injected: BackgroundTasks) -> Response:
        injected.add_task(note, "injected")
        injected.add_task(plain, "injected plain")
        own = BackgroundTasks(
            [
                starlette.background.BackgroundTask(note, "own"),
            ]
        )
        own.add_task(plain, "own plain")
        return JSONResponse({}, background=own)

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: len(said) == 4)
    assert sorted(said) == ["injected", "injected plain", "own", "own plain"]
    assert said.index("own plain") < said.index("injected plain")


async def test_one_made_outside_a_request_uses_the_only_installation(app: FastAPI, said: list[str]) -> None:
    async with serving(app):
        tasks = BackgroundTasks()
        handle = tasks.add_task(note, "hello")
        await tasks()
        assert await handle.result(timeout=5) == "hello"


@pytest.mark.parametrize(("environment", "level"), [("production", logging.WARNING), ("development", logging.ERROR)])
async def test_one_made_outside_the_request_that_answers_with_it_is_told_of_once(
    app: FastAPI,
    said: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    environment: str,
    level: int,
) -> None:
    monkeypatch.setenv("FASTAPI_ENV", environment)

    @task(name=f"told-of-in-{environment}")
    async def later(text: str) -> None:
        the_diary.append(text)

    def answer() -> Response:
        tasks = BackgroundTasks()
        tasks.add_task(later, "run")
        return JSONResponse({}, background=tasks)

    @app.get("/")
    async def handler() -> Response:
        return await asyncio.get_running_loop().run_in_executor(None, answer)

    async with serving(app) as http:
        await http.get("/")
        await http.get("/")
        await until(lambda: said == ["run", "run"])
    [line] = [one for one in caplog.records if "was made outside the request" in one.getMessage()]
    assert line.levelno == level
    assert later.name in line.getMessage()


async def test_one_made_in_the_handler_is_not_told_of(
    app: FastAPI, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/")
    async def handler() -> Response:
        tasks = BackgroundTasks()
        tasks.add_task(note, "run")
        return JSONResponse({}, background=tasks)

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: said == ["run"])
    assert "was made outside the request" not in caplog.text


async def test_a_list_with_a_task_function_inside_is_stored(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler() -> Response:
        background = BackgroundTasks([starlette.background.BackgroundTask(note, "hello")])
        return Response(background=background)

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: said == ["hello"])
