"""What stands between a handler and the client."""

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import (
    JSONResponse,
)
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from differential.diary import gate, record
from differential.kit import Kit
from differential.scene import open_gate, post, situation
from differential.tasks import async_note, note


@situation(post("/"))
def set_by_middleware(kit: Kit) -> FastAPI:
    """A middleware gives its tasks to whatever response comes by."""
    app = kit.app()
    task = kit.task(async_note)

    @app.middleware("http")
    async def audited(request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        tasks = kit.BackgroundTasks()
        tasks.add_task(task, f"audit {request.url.path} {response.status_code}")
        response.background = tasks
        return response

    @app.post("/")
    async def handler() -> dict[str, str]:
        record("handler")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def begins_behind_http_middleware(kit: Kit) -> FastAPI:
    """Starlette before 2026 began the tasks when the middleware had the last byte, not yet the client."""
    app = kit.app()
    task = kit.task(async_note)

    @app.middleware("http")
    async def named(request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        response.headers["x-named"] = "yes"
        return response

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "behind")
        return {"message": "accepted"}

    return app


async def note_when_the_client_is_served(text: str) -> None:
    await gate("the client is served")
    record(f"note {text}")


@situation(post("/"), open_gate("the client is served"))
def behind_http_middleware(kit: Kit) -> FastAPI:
    """`@app.middleware("http")`, `BaseHTTPMiddleware` and gzip around a handler with tasks."""
    app = kit.app()
    task = kit.task(note_when_the_client_is_served)

    class Timed(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            record("timed: in")
            response = await call_next(request)
            response.headers["x-timed"] = "yes"
            record("timed: out")
            return response

    app.add_middleware(Timed)
    app.add_middleware(GZipMiddleware, minimum_size=1)

    @app.middleware("http")
    async def named(request: Request, call_next: Any) -> Response:
        record("named: in")
        response = await call_next(request)
        response.headers["x-named"] = "yes"
        record("named: out")
        return response

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        record("handler")
        background_tasks.add_task(task, "1")
        background_tasks.add_task(task, "2")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def behind_middleware_that_answers_itself(kit: Kit) -> FastAPI:
    """The response of the handler is thrown away; its tasks run all the same."""
    app = kit.app()
    task = kit.task(async_note)

    @app.middleware("http")
    async def replaced(request: Request, call_next: Any) -> Response:
        await call_next(request)
        return JSONResponse({"message": "from the middleware"}, status_code=203)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        record("handler")
        background_tasks.add_task(task, "of the response that nobody saw")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def behind_asgi_middleware(kit: Kit) -> FastAPI:
    """A middleware without a request of its own, and what it does when the application has returned."""
    app = FastAPI()
    task = kit.task(note)

    class Bracket:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                record("bracket opens")
            await self.app(scope, receive, send)
            if scope["type"] == "http":
                record("bracket closes")

    app.add_middleware(Bracket)
    kit.install(app)  # after it, so that nobody is inside of the bracket but the application

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        record("handler")
        background_tasks.add_task(task, "inside")
        return {"message": "accepted"}

    return app
