"""Servers that run an application on another event loop than asyncio's."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from afterwards import Afterwards, TaskHandle, task
from afterwards.core.errors import NotAsyncio
from face.processes import TIMEOUT, Program, write_application

REFUSAL = "NotAsyncio: Afterwards needs asyncio, and Trio or another event loop runs here"


def hypercorn(folder: Path, worker: str) -> Program:
    return Program([sys.executable, "-m", "hypercorn", "main:app", "--bind", "127.0.0.1:0", "-k", worker], folder)


def url(server: Program) -> str:
    return "http://" + server.says(r"Running on http://(127\.0\.0\.1:\d+)")[1]


def test_hypercorn_with_trio_is_refused_by_name(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app)")
    with hypercorn(tmp_path, "trio") as server:
        server.says(REFUSAL)
        server.says("--worker-class asyncio")


@pytest.mark.parametrize("worker", ["asyncio", "uvloop"])
def test_hypercorn_with_asyncio_runs_tasks(tmp_path: Path, worker: str) -> None:
    write_application(tmp_path, "Afterwards(app)")
    with hypercorn(tmp_path, worker) as server:
        assert httpx.post(f"{url(server)}/note/hello", timeout=TIMEOUT).status_code == 200
        server.writes("hello")
        server.stops()


@task
async def note(text: str) -> None: ...


ASKED: dict[str, Callable[[Afterwards, TaskHandle[None]], Coroutine[Any, Any, object]]] = {
    "status": lambda _, handle: handle.status(),
    "result": lambda _, handle: handle.result(timeout=1),
    "cancel": lambda _, handle: handle.cancel(),
    "enqueue": lambda *_: note.enqueue("again"),
    "list": lambda tasks, _: tasks.list(),
    "stats": lambda tasks, _: tasks.stats(),
}


@pytest.mark.afterwards(real=True)
@pytest.mark.parametrize("asked", ASKED)
def test_trio_is_refused_by_name_also_where_the_store_is_open(tmp_path: Path, asked: str) -> None:
    trio = pytest.importorskip("trio")
    tasks = Afterwards(url=f"sqlite:///{tmp_path}/tasks.db")
    with asyncio.Runner() as runner:

        async def store() -> TaskHandle[None]:
            await tasks.client.open()
            return await note.enqueue("once")

        handle = runner.run(store())
        with pytest.raises(NotAsyncio):
            trio.run(ASKED[asked], tasks, handle)
        runner.run(tasks.client.close())
