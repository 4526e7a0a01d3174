"""Task functions in background tasks that FastAPI did not inject: they are not stored, and that is told."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import fastapi
import pytest
import starlette.background
from fastapi import Depends, FastAPI, Response
from fastapi.concurrency import run_in_threadpool

from afterwards import Afterwards, BackgroundTasks, task
from afterwards.core.errors import NativeBackgroundTasks
from face.diary import said as the_diary
from face.serving import serving, until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task
async def natively(text: str) -> None:
    the_diary.append(text)


@task
def natively_in_thread(text: str) -> None:
    the_diary.append(text)


@task
async def warned_of(text: str) -> None:
    the_diary.append(text)


@task
def warned_of_in_thread(text: str) -> None:
    the_diary.append(text)


@task
def called(text: str = "called") -> str:
    the_diary.append(text)
    return text


def an_application(url: str, function: Callable[[str], Any]) -> FastAPI:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/fastapi")
    async def fastapis() -> Response:
        tasks = fastapi.BackgroundTasks()
        tasks.add_task(function, "ran")
        return Response(background=tasks)

    @app.get("/task")
    async def starlettes_task() -> Response:
        return Response(background=starlette.background.BackgroundTask(function, "ran"))

    @app.get("/tasks")
    async def starlettes_tasks() -> Response:
        return Response(
            background=starlette.background.BackgroundTasks([starlette.background.BackgroundTask(function, "ran")])
        )

    return app


@pytest.mark.parametrize("function", [natively, natively_in_thread], ids=["async", "def"])
@pytest.mark.parametrize("path", ["/fastapi", "/task", "/tasks"])
async def test_in_development_it_is_an_error(
    url: str,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    function: Callable[[str], Any],
    path: str,
) -> None:
    monkeypatch.setenv("FASTAPI_ENV", "development")
    async with serving(an_application(url, function)) as http:
        await http.get(path)
        await until(lambda: [r for r in caplog.records if r.exc_info and r.exc_info[0] is NativeBackgroundTasks])
    assert said == []


@pytest.mark.parametrize("function", [warned_of, warned_of_in_thread], ids=["async", "def"])
async def test_elsewhere_it_is_one_warning_that_names_the_remedy(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture, function: Any
) -> None:
    async with serving(an_application(url, function)) as http:
        for path in ("/fastapi", "/task", "/tasks", "/fastapi"):
            await http.get(path)
        await until(lambda: len(said) == 4)
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING and f"'{function.name}'" in r.message]
    assert len(warnings) == 1
    assert "that FastAPI injects" in warnings[0]


async def test_direct_calls_are_not_taken_for_it(
    url: str, said: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FASTAPI_ENV", "development")
    app = FastAPI()
    Afterwards(app, url)

    def calls_it() -> None:
        called("from a plain task")

    @app.get("/async")
    async def handler(tasks: BackgroundTasks) -> None:
        called("directly")
        await run_in_threadpool(called, "threadpool")
        await asyncio.to_thread(called, "to_thread")
        await anyio.to_thread.run_sync(called, "anyio")
        tasks.add_task(calls_it)

    @app.get("/def")
    def sync_handler(native: fastapi.BackgroundTasks, dependency: str = Depends(called)) -> None:
        called("def")
        native.add_task(calls_it)

    async with serving(app) as http:
        assert (await http.get("/async")).status_code == 200
        assert (await http.get("/def?text=dependency")).status_code == 200
        await until(lambda: len(said) == 8)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def _call_directly(text: str) -> None:
    await natively(text)
    natively_in_thread(text)


def test_direct_calls_on_an_event_loop_that_anyio_runs_are_no_trouble(said: list[str]) -> None:
    anyio.run(_call_directly, "said")
    assert said == ["said", "said"]


async def test_a_direct_call_in_a_thread_without_an_event_loop_is_no_trouble() -> None:
    assert await asyncio.to_thread(called, "thread") == "thread"
