"""Each main promise once, for `make quick`; the folders beside this one look at them closely."""

import asyncio
import os
import signal
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, State, TaskFailed, task
from afterwards.core.task import Task
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine
from face.diary import fail, note, note_in_thread, plain
from face.diary import said as diary
from face.processes import uvicorn, write_application
from face.serving import finished, records, serving, until, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    app.state.tasks = Afterwards(app, url)
    return app


@task(retries=1)
async def fail_once(text: str) -> None:
    diary.append(text)
    if diary.count(text) == 1:
        raise ConnectionError(text)


async def test_a_2xx_means_that_the_task_is_stored_and_it_runs(app: FastAPI, url: str, said: list[str]) -> None:
    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(note, "ran").id

    async with serving(app) as http:
        id = (await http.post("/")).json()
        async with SQLiteEngine(Path(url.removeprefix("sqlite:///"))) as another:
            [stored] = await another.get([id])
        assert stored.name == "note"
        await until(lambda: said == ["ran"])


async def test_the_tasks_of_a_request_run_in_the_order_added(app: FastAPI, said: list[str]) -> None:
    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        for number in range(3):
            background_tasks.add_task(note_in_thread if number == 1 else note, str(number))

    async with serving(app) as http:
        await http.post("/")
        await until(lambda: len(said) == 3)
    assert said == ["0", "1", "2"]


async def test_what_comes_after_a_failure_is_cancelled_and_says_why(app: FastAPI, said: list[str]) -> None:
    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(fail, "first")
        background_tasks.add_task(note, "second")

    async with serving(app) as http:
        await http.post("/")
        tasks = await stopped(app.state.tasks)
    assert said == ["first"]
    assert [one.state for one in tasks] == [State.FAILED, State.CANCELLED]
    assert tasks[0].id in (tasks[1].reason or "")


async def test_a_handler_that_raises_stores_nothing(app: FastAPI, said: list[str]) -> None:
    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "never")
        raise ValueError

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 500
        assert await records(app.state.tasks) == []


async def test_a_store_that_is_away_is_answered_with_503(app: FastAPI, url: str, said: list[str]) -> None:
    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "added")

    async with serving(app) as http:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            refused = await http.post("/")
            other.execute("ROLLBACK")
        assert refused.status_code == 503 and "retry-after" in refused.headers
        assert said == []
        assert (await http.post("/")).status_code == 200
        await until(lambda: said == ["added"])


async def test_plain_functions_run_as_they_do_in_fastapi(app: FastAPI, said: list[str]) -> None:
    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        assert background_tasks.add_task(plain, "plain") is None

    async with serving(app) as http:
        await http.post("/")
        await until(lambda: said == ["plain"])
        assert await records(app.state.tasks) == []


async def test_a_failure_is_retried_and_recorded(url: str, said: list[str]) -> None:
    async with working(url):
        record = await finished(await fail_once.options(delay=timedelta()).enqueue("text"))
    assert (record.state, record.attempt, said) == (State.SUCCEEDED, 2, ["text", "text"])
    assert [failure.type for failure in record.failures] == ["ConnectionError"]


async def test_a_handle_gives_the_result(url: str, said: list[str]) -> None:
    async with working(url):
        assert await (await note.enqueue("result")).result(timeout=10) == "result"
        with pytest.raises(TaskFailed, match="ValueError: wrong"):
            await (await fail.enqueue("wrong")).result(timeout=10)


def test_what_a_killed_server_was_doing_runs_after_its_restart(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app)")
    with uvicorn(tmp_path) as server:
        server.post("/wait/task")
        server.writes("task began")
        os.killpg(server.process.pid, signal.SIGKILL)
        server.ends()
    (tmp_path / "go").touch()
    with uvicorn(tmp_path) as server:
        server.writes("task ended")
        server.stops()
    assert asyncio.run(states(tmp_path / "afterwards.db")) == [State.SUCCEEDED]


def test_a_server_that_is_told_to_end_leaves_what_it_has_not_done(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app, grace=0)")
    with uvicorn(tmp_path) as server:
        server.post("/wait/task")
        server.writes("task began")
        server.stops()
    assert asyncio.run(states(tmp_path / "afterwards.db")) == [State.QUEUED]


async def stopped(tasks: Afterwards) -> list[Task]:
    """All records once each has finished."""

    async def look() -> list[Task] | None:
        found = await records(tasks)
        return found if all(one.state.finished for one in found) else None

    return await until_async(look)


async def states(file: Path) -> list[State]:
    async with SQLiteEngine(file) as engine:
        return [one.state for one in await engine.find(Query())]
