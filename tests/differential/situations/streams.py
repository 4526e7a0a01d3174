"""Responses that are on their way for a while: streams and files."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import (
    FileResponse,
    StreamingResponse,
)
from starlette.background import BackgroundTask

from differential.client import Client
from differential.diary import gate, record
from differential.kit import Kit
from differential.scene import get, situation, wait_for
from differential.tasks import note


@situation(get("/async"), wait_for("note after the stream: ends"), get("/sync"))
def streaming_response(kit: Kit) -> FastAPI:
    """Tasks of a stream run when its last byte has gone."""
    app = kit.app()
    task = kit.task(note)

    @app.get("/async")
    async def asynchronous(background_tasks: kit.BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for piece in "abc":
                record(f"piece {piece}")
                yield piece

        background_tasks.add_task(task, "after the stream")
        return StreamingResponse(body(), media_type="text/plain")

    @app.get("/sync")
    def synchronous(background_tasks: kit.BackgroundTasks) -> StreamingResponse:
        def body() -> Iterator[str]:
            for piece in "def":
                record(f"piece {piece}")
                yield piece

        background_tasks.add_task(task, "after the stream in a thread")
        return StreamingResponse(body(), media_type="text/plain")

    return app


@situation(get("/"))
def added_while_streaming(kit: Kit) -> FastAPI:
    """The body of the stream adds tasks, when the first bytes have gone already."""
    app = kit.app()
    task = kit.task(note)

    @app.get("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for piece in "abc":
                yield piece
                background_tasks.add_task(task, f"sent {piece}")
            record("end of the stream")

        background_tasks.add_task(task, "added before")
        return StreamingResponse(body(), media_type="text/plain")

    return app


@situation(get("/"))
def broken_stream(kit: Kit) -> FastAPI:
    """The body fails when the status and some bytes have gone."""
    app = kit.app()
    task = kit.task(note)

    @app.get("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "a"
            raise LookupError("on purpose: the stream broke")

        background_tasks.add_task(task, "of a broken stream")
        return StreamingResponse(body(), media_type="text/plain")

    return app


def _leave_while_streaming(client: Client) -> None:
    with client.stream("GET", "/") as pieces:
        client.say(next(pieces))
    client.wait_for("end of the stream")


@situation(_leave_while_streaming)
def client_that_leaves_a_stream(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.get("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            try:
                yield "first"
                await gate("that nobody opens")
            finally:
                record("end of the stream")

        background_tasks.add_task(task, "of a stream that was left")
        return StreamingResponse(body(), media_type="text/plain")

    return app


def removed(path: Path) -> None:
    record(f"there before: {path.exists()}")
    os.remove(path)
    record(f"there afterwards: {path.exists()}")


@situation(get("/"), wait_for("there afterwards: False"), get("/own"))
def file_response(kit: Kit) -> FastAPI:
    """A file that a task removes when it has been sent; by an injected task, and by one of the response."""
    app = kit.app()
    task = kit.task(removed)

    def report(name: str) -> Path:
        path = kit.folder / name
        path.write_text("a,b\n1,2\n")
        os.utime(path, (1_700_000_000, 1_700_000_000))  # the headers tell when it was changed
        return path

    @app.get("/")
    def handler(background_tasks: kit.BackgroundTasks) -> FileResponse:
        path = report("injected.csv")
        background_tasks.add_task(task, path)
        return FileResponse(path, media_type="text/csv", filename="report.csv")

    @app.get("/own")
    def own() -> FileResponse:
        path = report("own.csv")
        return FileResponse(path, filename="own.csv", background=BackgroundTask(removed, path))

    return app
