"""Serves an application over real HTTP, on the event loop of the test."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from afterwards import Afterwards, TaskHandle, TaskRecord
from afterwards.core.task import Task
from afterwards.engine import Query

TIMEOUT = 40.0
"""Seconds that anything may take which a test waits for."""


NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""httpx spends a tenth of a second on certificates that nobody here asks for."""


def a_client(base_url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=base_url, timeout=TIMEOUT, verify=NO_TLS, trust_env=False)


@asynccontextmanager
async def serving(app: Any, **config: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, which runs under uvicorn meanwhile."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="websockets-sansio", **config)
    )
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with a_client(f"http://127.0.0.1:{port}") as http:
            yield http
        await until(lambda: not server.server_state.connections)
    finally:
        await asyncio.wait_for(server.shutdown(), TIMEOUT)


async def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives, once that is true."""
    deadline = monotonic() + TIMEOUT
    while not (found := condition()):
        assert monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.002)
    return found


async def until_async(condition: Callable[[], Awaitable[Any]]) -> Any:
    deadline = monotonic() + TIMEOUT
    while not (found := await condition()):
        assert monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.005)
    return found


def an_engine(folder: Path) -> str:
    """The URL of an engine that no other test uses."""
    return f"sqlite:///{folder / 'tasks.db'}"


@asynccontextmanager
async def working(url: str, **options: Any) -> AsyncIterator[Afterwards]:
    """An application that nobody asks anything of, with its worker."""
    app = FastAPI()
    tasks = Afterwards(app, url, **options)
    async with app.router.lifespan_context(app):
        yield tasks


async def finished(handle: TaskHandle[Any]) -> TaskRecord:
    """The record of a task once it has finished, however it did."""

    async def look() -> TaskRecord | None:
        record = await handle.status()
        return record if record.state.finished else None

    found: TaskRecord = await until_async(look)
    return found


async def as_stored(handle: TaskHandle[Any]) -> Task:
    """A task as its engine keeps it."""
    return await handle._client.get(handle.id)


async def records(tasks: Afterwards) -> list[Task]:
    """All that is stored, in the order stored."""
    return list(reversed(await (await tasks.client.open()).find(Query())))
