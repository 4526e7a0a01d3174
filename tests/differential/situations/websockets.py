"""`BackgroundTasks` in websocket handlers, which FastAPI injects there, and never runs."""

from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket

from differential.client import Client
from differential.diary import record
from differential.kit import Kit
from differential.scene import situation
from differential.tasks import note


def _talk(client: Client) -> None:
    with client.websocket("/ws") as connection:
        connection.send("ada")
        client.say(str(connection.recv()))
        connection.send("bob")
        client.say(str(connection.recv()))


@situation(_talk)
def in_a_websocket_handler(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.websocket("/ws")
    async def handler(websocket: WebSocket, background_tasks: kit.BackgroundTasks) -> None:
        await websocket.accept()
        for _ in range(2):
            name = await websocket.receive_text()
            background_tasks.add_task(task, f"welcome {name}")
            await websocket.send_text(f"hello {name}")
        await websocket.close()
        record("handler: done")

    return app


@situation(_talk)
def in_a_dependency_of_a_websocket_handler(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    async def counted(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "a session was opened")

    @app.websocket("/ws")
    async def handler(websocket: WebSocket, _: Annotated[None, Depends(counted)]) -> None:
        await websocket.accept()
        for _ in range(2):
            await websocket.send_text(f"hello {await websocket.receive_text()}")
        await websocket.close()
        record("handler: done")

    return app
