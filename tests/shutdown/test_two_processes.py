"""A deploy: the next process runs beside one that was told to end, and no task runs in both at once."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest

from afterwards.core.task import Task
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine
from face.processes import Program, eventually, record, uvicorn, write_application

APPLICATION = """
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Annotated
from fastapi import Depends
from fastapi.responses import StreamingResponse

def wait(text: str) -> None:
    write(f"{text} began")
    while not os.path.exists("go"):
        time.sleep(0.01)

async def clean_up(text: str) -> None:
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)

@task
def in_a_thread(text: str) -> None:
    wait(text)

@task(rerun_after_crash=False)
def only_once(text: str) -> None:
    wait(text)

@task
async def slow_to_stop(text: str) -> None:
    write(f"{text} began")
    try:
        await asyncio.sleep(60)
    finally:
        await clean_up(text)

@task
async def will_not_stop(text: str) -> None:
    write(f"{text} began")
    while not os.path.exists("go"):
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            if os.path.exists("leave"):  # else the process would never end
                raise

def slow_to_close() -> Iterator[None]:
    try:
        yield
    finally:
        while not os.path.exists("go") and not os.path.exists("leave"):
            time.sleep(0.01)

@task
async def with_a_dependency(text: str, slow: Annotated[None, Depends(slow_to_close)]) -> None:
    write(f"{text} began")
    await asyncio.sleep(60)

FUNCTIONS = {
    function.__name__: function
    for function in (in_a_thread, only_once, slow_to_stop, will_not_stop, with_a_dependency)
}

@app.post("/add/{name}/{text}")
async def add(name: str, text: str, tasks: BackgroundTasks) -> None:
    tasks.add_task(FUNCTIONS[name], text)

@app.get("/events")
async def events() -> StreamingResponse:
    async def body():
        while True:
            yield "data"
            await asyncio.sleep(0.02)
    return StreamingResponse(body(), media_type="text/event-stream")

@asynccontextmanager
async def lifespan(app):
    yield
    write("closing")
    while os.path.exists("stay") and not os.path.exists("leave"):
        await asyncio.sleep(0.01)

app.router.lifespan_context = lifespan
"""

UNSTOPPABLE = ["in_a_thread", "slow_to_stop", "will_not_stop", "with_a_dependency"]


def write_it(folder: Path, **options: object) -> None:
    asked = ", ".join(f"{name}={value}" for name, value in {"grace": 0.1, "lease": 3, **options}.items())
    write_application(folder, APPLICATION, f"Afterwards(app, {asked})")


def stored(folder: Path, name: str) -> Task:
    async def ask() -> Task:
        async with SQLiteEngine(folder / "afterwards.db") as engine:
            [task] = await engine.find(Query(names=frozenset({name})))
            return task

    return asyncio.run(ask())


def its_lease_is_renewed(folder: Path, name: str) -> None:
    """Wait until the lease was renewed twice: by then the other process has looked for lost tasks."""
    for _ in range(2):
        before = stored(folder, name).lease_until
        eventually(partial(_is_renewed, folder, name, before))


def _is_renewed(folder: Path, name: str, before: datetime | None) -> bool:
    now = stored(folder, name).lease_until
    assert now and before, "it was given back"
    return now > before


@contextmanager
def told_to_end_while_connected(old: Program) -> Iterator[None]:
    """A client stays connected meanwhile, so that the process does not end."""
    with httpx.stream("GET", f"{old.url}/events", timeout=60) as response:
        events = response.iter_text()  # dropping it would close the connection
        next(events)
        old.signal(signal.SIGTERM)
        old.says("has not stopped. It keeps its lease")
        yield


@contextmanager
def told_to_end_slowly(old: Program) -> Iterator[None]:
    """The application's own lifespan takes long to end, after the worker has."""
    (old.folder / "stay").touch()
    old.signal(signal.SIGTERM)
    old.says("has not stopped. It keeps its lease")
    old.writes("closing")
    yield
    (old.folder / "leave").touch()


@pytest.mark.parametrize("name", UNSTOPPABLE)
@pytest.mark.parametrize("told_to_end", [told_to_end_while_connected, told_to_end_slowly])
def test_what_has_not_stopped_begins_nowhere_else_and_its_end_is_stored(
    tmp_path: Path, name: str, told_to_end: object
) -> None:
    write_it(tmp_path)
    with uvicorn(tmp_path) as old:
        old.post(f"/add/{name}/task")
        old.writes("task began")
        with told_to_end(old), uvicorn(tmp_path) as new:  # type: ignore[operator]
            new.post("/note/new")
            new.writes("new")
            its_lease_is_renewed(tmp_path, name)
            assert old.diary().count("task began") == 1
            (tmp_path / "go").touch()  # now it stops
            eventually(lambda: stored(tmp_path, name).state == "succeeded" or new.diary().count("task began") == 2)
            assert stored(tmp_path, name).crashed == 0
            assert [failure.kind for failure in stored(tmp_path, name).failures] in ([], ["released"])


@pytest.mark.parametrize("name", ["in_a_thread", "will_not_stop"])
def test_what_has_not_stopped_by_the_end_of_its_process_runs_again_without_a_charge(tmp_path: Path, name: str) -> None:
    write_it(tmp_path)
    with uvicorn(tmp_path) as old:
        old.post(f"/add/{name}/task")
        old.writes("task began")
        with uvicorn(tmp_path) as new, told_to_end_slowly(old):
            assert new.url
            its_lease_is_renewed(tmp_path, name)
            assert old.diary().count("task began") == 1
            (tmp_path / "leave").touch()
            old.ends()
            eventually(lambda: old.diary().count("task began") == 2)
            (tmp_path / "go").touch()
            eventually(lambda: record(tmp_path, name)[0]["state"] == "succeeded")
    assert record(tmp_path, name) == [
        {"state": "succeeded", "attempt": 2, "failed": 0, "crashed": 0, "kinds": ["released"]}
    ]


def test_a_kill_after_the_grace_period_is_no_crash(tmp_path: Path) -> None:
    """As by whoever waits for the process, because a client stays connected."""
    write_it(tmp_path)
    with uvicorn(tmp_path) as old:
        old.post("/add/in_a_thread/task")
        old.writes("task began")
        with told_to_end_while_connected(old), uvicorn(tmp_path) as new:
            assert new.url
            eventually(lambda: _unregistered(tmp_path))
            old.process.kill()
            old.ends()
            eventually(lambda: old.diary().count("task began") == 2)
    assert record(tmp_path, "in_a_thread")[0]["kinds"] == ["released"]


def _unregistered(folder: Path) -> bool:
    async def ask() -> bool:
        async with SQLiteEngine(folder / "afterwards.db") as engine:
            return any(worker.has_left for worker in await engine.workers(timedelta(days=1)))

    return asyncio.run(ask())


def test_what_must_run_only_once_may_still_succeed_after_the_grace_period(tmp_path: Path) -> None:
    write_it(tmp_path)
    with uvicorn(tmp_path) as old:
        old.post("/add/only_once/task")
        old.writes("task began")
        with told_to_end_slowly(old):
            (tmp_path / "go").touch()
            eventually(lambda: record(tmp_path, "only_once")[0]["state"] == "succeeded")
        old.ends()


def test_a_call_that_waits_for_a_thread_is_given_back_and_never_made_here(tmp_path: Path) -> None:
    write_it(tmp_path, threads=1)
    with uvicorn(tmp_path) as old:
        old.post("/add/in_a_thread/first")
        old.writes("first began")
        old.post("/add/only_once/second")
        eventually(lambda: stored(tmp_path, "only_once").state == "running")
        with told_to_end_slowly(old):
            eventually(lambda: record(tmp_path, "only_once")[0]["state"] == "queued")
            (tmp_path / "go").touch()
            eventually(lambda: record(tmp_path, "in_a_thread")[0]["state"] == "succeeded")
        old.ends()
    assert "second began" not in old.diary()
    assert record(tmp_path, "only_once")[0]["kinds"] == ["released"]
