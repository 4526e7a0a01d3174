"""One run of a situation: its server in this thread, its client in another."""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from differential import diary
from differential.client import UNHEARD, Client
from differential.kit import THE_LAST_TASK, Kit, Variant
from differential.log import Log
from differential.scene import Situation


class Run:
    """One situation under one variant, from the making of its application to the end of its server."""

    def __init__(self, situation: Situation, variant: Variant, folder: Path) -> None:
        diary.keep_in(folder)
        self.situation = situation
        self.kit = Kit(variant, folder)
        self.log = Log()
        self.failed: str | None = None

    def observe(self, expected: int) -> dict[str, Any]:
        """What happened. The server is stopped when as many events as expected have been recorded."""
        if self.kit.variant is Variant.STOCK and "afterwards" in sys.modules:
            raise AssertionError("stock would not be stock any more: we have been imported")
        app = self.situation.build(self.kit)
        answers = self._serve(app, expected)
        gc.collect()  # what was never awaited or never closed is complained about now
        return {
            "failed": self.failed,
            "events": diary.events(),
            "answers": answers,
            "complaints": self.log.complaints(),
            "log": self.log.in_full(),
            "openapi": app.openapi() if hasattr(app, "openapi") else None,
        }

    def _serve(self, app: ASGIApp, expected: int) -> list[dict[str, Any]]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn raises it once more when it has shut down
        listening = socket.create_server(("127.0.0.1", 0))
        client = Client(listening.getsockname()[1])
        playing = threading.Thread(target=self._play, args=(client, expected))
        try:
            config = uvicorn.Config(Watched(app, self.kit), log_config=None, lifespan="on")
            Server(config, playing.start).run([listening])
            playing.join()
        except SystemExit:
            self.failed = f"the server did not start: {self.log.in_full()}"
        listening.close()
        return client.answers

    def _play(self, client: Client, expected: int) -> None:
        try:
            for step in self.situation.steps:
                step(client)
            with suppress(TimeoutError):  # the comparison shows best what is missing
                diary.wait_until(lambda: len(diary.events()) >= expected, "the last event")
            client.add_the_last_task()
        except Exception:
            self.failed = traceback.format_exc()
        finally:
            client.close()
            os.kill(os.getpid(), signal.SIGTERM)


class Server(uvicorn.Server):
    """uvicorn, which says when it has started, and looks more often whether it shall stop."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._say_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._say_started()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # noqa: ASYNC110 - what it waits for is a flag that signal handlers set
            await asyncio.sleep(diary.POLL)


class Watched:
    """Stands between the server and the application, and records when responses are handed to the network."""

    def __init__(self, app: ASGIApp, kit: Kit) -> None:
        self.app = app
        self.kit = kit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] == THE_LAST_TASK:
            await self.kit.add_the_last_task()
            await Response()(scope, receive, send)
            return
        if UNHEARD.encode() in dict(scope["headers"]):
            diary.unheard()
        request = f"{scope['method']} {scope['path']}"

        async def watched_send(message: Message) -> None:
            await send(message)
            match message:
                case {"type": "http.response.start", "status": status}:
                    diary.record(f"{request}: {status}")
                case {"type": "http.response.body", "more_body": True}:
                    pass
                case {"type": "http.response.body"}:
                    diary.record(f"{request}: sent")

        await self.app(scope, receive, watched_send)
