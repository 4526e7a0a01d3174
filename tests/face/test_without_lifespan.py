"""Applications whose server runs no lifespan: the worker begins with the first request, and ends with the process."""

import asyncio
import logging
import signal
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from afterwards import Afterwards, BackgroundTasks
from afterwards.core.task import Task
from afterwards.engine import Query
from afterwards.worker import parts
from face.diary import note
from face.processes import output, record, uvicorn, write_application
from face.serving import serving, until

pytestmark = pytest.mark.afterwards(real=True)


def test_what_uvicorn_accepts_without_a_lifespan_runs_and_that_is_said_once(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app)")
    with uvicorn(tmp_path, "--lifespan", "off") as server:
        for text in ("one", "two"):
            server.post(f"/note/{text}")
        server.writes("one", "two")
        server.says("without its lifespan")
        server.stops()
    assert server.output.count("without its lifespan") == 1
    assert [task["state"] for task in record(tmp_path, "note")] == ["succeeded", "succeeded"]


def test_what_was_left_in_the_file_runs_with_any_first_request(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app, worker=False)")
    with uvicorn(tmp_path, "--lifespan", "off") as server:
        server.post("/note/left")
        server.stops()
    write_application(tmp_path, "Afterwards(app)")
    with uvicorn(tmp_path, "--lifespan", "off") as server:
        server.get("/openapi.json")
        server.writes("left")


@pytest.mark.anyio
async def test_a_new_store_is_not_read_before_it_is_made(url: str) -> None:
    async def read() -> list[Task]:
        return list(await (await client.open()).find(Query()))

    client = Afterwards(FastAPI(), url).client
    try:
        assert (await asyncio.gather(client.open(), *(read() for _ in range(5))))[1:] == [[]] * 5
    finally:
        await client.close()


@pytest.mark.parametrize("path", ["wait", "wait_in_thread"])
def test_a_task_that_runs_at_the_signal_runs_to_its_end_first(tmp_path: Path, path: str) -> None:
    write_application(tmp_path, "Afterwards(app)")
    with uvicorn(tmp_path, "--lifespan", "off") as server:
        server.post(f"/{path}/one")
        server.writes("one began")
        server.signal(signal.SIGTERM)
        server.says("draining|drain|signal|still run")
        (tmp_path / "go").touch()
        server.ends()
    assert server.diary() == ["one began", "one ended"]
    name = "wait_until_told" if path == "wait" else "wait_in_thread_until_told"
    assert [(task["state"], task["crashed"]) for task in record(tmp_path, name)] == [("succeeded", 0)]


def test_a_task_that_outlasts_the_grace_period_is_given_back_uncharged(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app, grace=0.1)")
    with uvicorn(tmp_path, "--lifespan", "off") as server:
        server.post("/wait/one")
        server.writes("one began")
        server.stops()
    assert [(task["state"], task["crashed"], task["failed"]) for task in record(tmp_path, "wait_until_told")] == [
        ("queued", 0, 0)
    ]


MOUNTED = """
from starlette.applications import Starlette
from starlette.routing import Mount

Afterwards(app)
outer = Starlette(routes=[Mount("/deep", Starlette(routes=[Mount("/sub", app)]))])
"""


def test_an_application_mounted_in_another_runs_its_tasks_and_ends_well(tmp_path: Path) -> None:
    write_application(tmp_path, MOUNTED)
    with uvicorn(tmp_path, app="main:outer") as server:
        server.post("/deep/sub/note/one")
        server.writes("one")
        server.stops()
    assert [task["state"] for task in record(tmp_path, "note")] == ["succeeded"]


def an_application(url: str) -> FastAPI:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "run")

    @app.get("/enqueue")
    async def enqueue() -> None:
        await note.enqueue("run")

    return app


@pytest.mark.parametrize("path", ["/", "/enqueue"])
def test_an_adapter_that_only_calls_the_application_runs_its_tasks(url: str, said: list[str], path: str) -> None:
    async def ask() -> None:
        app = an_application(url)
        for _ in range(2):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
                assert (await http.get(path)).status_code == 200
        await until(lambda: said == ["run", "run"])

    asyncio.run(ask())


@pytest.mark.anyio
async def test_where_a_lifespan_runs_no_second_worker_begins(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    app = an_application(url)
    outer = Starlette(routes=[Mount("/sub", app)], lifespan=lambda _: app.router.lifespan_context(app))
    async with serving(outer) as http:
        assert (await http.get("/sub/")).status_code == 200
        await until(lambda: said == ["run"])
    assert not [line for line in caplog.messages if "without its lifespan" in line]
    assert len([line for line in caplog.messages if "worker here" in line]) == 1


@pytest.mark.parametrize("restart_after", [parts.RESTART_AFTER, 0.0])  # where the end takes long, parts are restarted
def test_each_event_loop_after_the_other_has_a_worker(
    url: str,
    said: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    restart_after: float,
) -> None:
    monkeypatch.setattr(parts, "RESTART_AFTER", restart_after)
    app = an_application(url)

    async def ask(times: int) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            assert (await http.get("/")).status_code == 200
        await until(lambda: len(said) == times)

    for times in (1, 2, 3):
        asyncio.run(ask(times))
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.WARNING] == []


def test_attempts_see_nothing_of_the_request_that_began_the_worker(tmp_path: Path) -> None:
    write_application(
        tmp_path,
        """
        from contextvars import ContextVar
        Afterwards(app)
        user = ContextVar("user", default="nobody")

        @task
        async def tell() -> None:
            write(user.get())

        @app.middleware("http")
        async def name(request, call_next):
            user.set("somebody")
            return await call_next(request)

        @app.post("/tell")
        async def ask(tasks: BackgroundTasks) -> None:
            user.set("somebody")
            tasks.add_task(tell)
        """,
    )
    with uvicorn(tmp_path, "--lifespan", "off") as server:
        server.post("/tell")
        server.writes("nobody")


THREADED = """
import asyncio, threading, time, os
import httpx
from main import app, write

async def ask() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        await http.post("/wait/one")
        while not os.path.exists("diary.txt"):
            await asyncio.sleep(0.01)

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
asyncio.run_coroutine_threadsafe(ask(), loop).result(20)
print("over")
"""


def test_where_the_event_loop_has_a_thread_of_its_own_the_end_of_the_process_gives_back(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app)")
    assert "over" in output(THREADED, tmp_path)
    assert [(task["state"], task["crashed"]) for task in record(tmp_path, "wait_until_told")] == [("queued", 0)]


def test_a_mistake_in_a_task_function_is_told_and_requests_are_answered(tmp_path: Path) -> None:
    write_application(
        tmp_path,
        """
        Afterwards(app)

        @task
        async def mistaken(later: "NotThere") -> None: ...
        """,
    )
    with uvicorn(tmp_path, "--lifespan", "off") as server:
        server.post("/note/one")
        server.says("the worker could not start.*mistaken")
