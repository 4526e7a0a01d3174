"""Background tasks of websocket handlers: FastAPI injects them, and never runs them; ours run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from afterwards import Afterwards, BackgroundTasks, NotStored, TaskHandle
from face.diary import note, note_in_thread, plain
from face.serving import serving, until, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    Afterwards(app, url)
    return app


@asynccontextmanager
async def talking(http: httpx.AsyncClient, path: str = "/") -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://127.0.0.1:{http.base_url.port}{path}", proxy=None) as connection:
        yield connection


async def test_durable_tasks_are_stored_while_the_conversation_goes_on_and_run_when_it_has_ended(
    app: FastAPI, said: list[str]
) -> None:
    @app.websocket("/")
    async def handler(websocket: WebSocket, tasks: BackgroundTasks) -> None:
        assert isinstance(tasks, BackgroundTasks)
        await websocket.accept()
        async for text in websocket.iter_text():
            handle = tasks.add_task(note, text)
            await until_async(lambda handle=handle: is_stored(handle))
            await websocket.send_text("stored")

    async with serving(app) as http:
        async with talking(http) as connection:
            for text in ("one", "two", "three"):
                await connection.send(text)
                assert await connection.recv() == "stored"
            assert said == []
        await until(lambda: len(said) == 3)
    assert said == ["one", "two", "three"]


async def test_flush_stores_in_the_conversation(app: FastAPI, said: list[str]) -> None:
    @app.websocket("/")
    async def handler(websocket: WebSocket, tasks: BackgroundTasks) -> None:
        await websocket.accept()
        handle = tasks.add_task(note_in_thread, "hello")
        await tasks.flush()
        await websocket.send_text((await handle.status()).name)

    async with serving(app) as http, talking(http) as connection:
        assert await connection.recv() == "note_in_thread"
        await until(lambda: said == ["hello"])


async def test_plain_tasks_run_at_its_end(app: FastAPI, said: list[str]) -> None:
    @app.websocket("/")
    async def handler(websocket: WebSocket, tasks: BackgroundTasks) -> None:
        await websocket.accept()
        tasks.add_task(plain, "plain")
        await websocket.receive_text()
        said.append("ended")

    async with serving(app) as http, talking(http) as connection:
        await connection.send("enough")
        await until(lambda: said == ["ended", "plain"])


@pytest.mark.parametrize("added", [plain, note], ids=["plain", "durable"])
async def test_tasks_run_when_the_other_side_ends_the_conversation(app: FastAPI, said: list[str], added: Any) -> None:
    """Most handlers end by WebSocketDisconnect, which is no failure of theirs."""

    @app.websocket("/")
    async def handler(websocket: WebSocket, tasks: BackgroundTasks) -> None:
        await websocket.accept()
        tasks.add_task(added, "added")
        while True:
            await websocket.receive_text()

    async with serving(app) as http:
        async with talking(http) as connection:
            await connection.send("hello")
        await until(lambda: said)
    assert said == ["added"]


async def test_plain_tasks_do_not_run_when_the_handler_broke(app: FastAPI, said: list[str]) -> None:
    @app.websocket("/")
    async def handler(websocket: WebSocket, tasks: BackgroundTasks) -> None:
        await websocket.accept()
        tasks.add_task(plain, "never")
        raise RuntimeError("broken")

    async with serving(app) as http, talking(http) as connection:
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(connection.recv(), 5)
    assert said == []


async def test_dependencies_of_websockets_share_the_object(app: FastAPI, said: list[str]) -> None:
    async def dependency(tasks: BackgroundTasks) -> BackgroundTasks:
        tasks.add_task(note, "dependency")
        return tasks

    @app.websocket("/")
    async def handler(websocket: WebSocket, tasks: BackgroundTasks, other: Annotated[Any, Depends(dependency)]) -> None:
        assert tasks is other
        await websocket.accept()
        await websocket.send_text("same")

    async with serving(app) as http, talking(http) as connection:
        assert await connection.recv() == "same"
        await until(lambda: said == ["dependency"])


async def test_enqueue_in_a_websocket_handler_starts_at_once(app: FastAPI, said: list[str]) -> None:
    @app.websocket("/")
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        handle = await note.enqueue("hello")
        await websocket.send_text(await handle.result(timeout=5))
        await websocket.receive_text()

    async with serving(app) as http, talking(http) as connection:
        assert await connection.recv() == "hello"


async def test_a_conversation_that_the_server_ends_does_not_hang(app: FastAPI, said: list[str]) -> None:
    @app.websocket("/")
    async def handler(websocket: WebSocket, tasks: BackgroundTasks) -> None:
        await websocket.accept()
        tasks.add_task(note, "before the error")
        raise RuntimeError("broken")

    async with serving(app) as http, talking(http) as connection:
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(connection.recv(), 5)
        await until(lambda: said == ["before the error"])


async def is_stored(handle: TaskHandle[Any]) -> bool:
    try:
        return bool(await handle.status())
    except NotStored:
        return False
