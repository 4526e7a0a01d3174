"""What a handler returns."""

import fastapi
from fastapi import FastAPI, Request, Response
from fastapi.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
)
from starlette.background import BackgroundTask
from starlette.routing import Route

from differential.kit import Kit
from differential.scene import get, post, situation, wait_for
from differential.tasks import async_note, note


@situation(post("/"))
def own_response(kit: Kit) -> FastAPI:
    """A response without a background of its own carries the injected tasks."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> Response:
        background_tasks.add_task(task, "injected")
        return HTMLResponse("<p>accepted</p>", status_code=201, headers={"x-own": "yes"})

    return app


@situation(post("/"))
def own_response_with_own_task(kit: Kit) -> FastAPI:
    """The response brings a plain task of its own, and there are injected ones as well."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> Response:
        background_tasks.add_task(task, "injected")
        return JSONResponse({"message": "accepted"}, background=BackgroundTask(async_note, "of the response"))

    return app


@situation(post("/"))
def own_response_with_own_tasks(kit: Kit) -> FastAPI:
    """The response brings an object that was made by hand, and there are injected tasks as well."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> Response:
        own = kit.BackgroundTasks()
        own.add_task(task, "of the response")
        background_tasks.add_task(task, "injected")
        return JSONResponse({"message": "accepted"}, background=own)

    return app


@situation(post("/"))
def own_response_with_the_injected_object(kit: Kit) -> FastAPI:
    """Handed to the response by hand, and still run once."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> Response:
        background_tasks.add_task(task, "injected")
        return JSONResponse({"message": "accepted"}, background=background_tasks)

    return app


@situation(post("/"))
def object_made_by_hand(kit: Kit) -> FastAPI:
    """Starlette's way: nothing is injected, the response is given the tasks."""
    app = kit.app()
    task, async_task = kit.task(note), kit.task(async_note)

    @app.post("/")
    async def handler() -> Response:
        tasks = kit.BackgroundTasks()
        tasks.add_task(task, text="1")
        tasks.add_task(async_task, text="2")
        return JSONResponse({"message": "accepted"}, background=tasks)

    return app


@situation(post("/"))
def object_made_by_hand_in_a_route_of_starlette(kit: Kit) -> FastAPI:
    """A route without FastAPI's injection, in the same application."""
    app = kit.app()
    task = kit.task(note)

    async def handler(request: Request) -> Response:
        tasks = kit.BackgroundTasks()
        tasks.add_task(task, request.url.path)
        return PlainTextResponse("accepted", background=tasks)

    app.router.routes.append(Route("/", handler, methods=["POST"]))
    return app


@situation(post("/"))
def single_task_of_starlette(kit: Kit) -> FastAPI:
    """`BackgroundTask` alone, which stays Starlette's under every variant."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler() -> Response:
        return JSONResponse({"message": "accepted"}, background=BackgroundTask(task, "alone"))

    return app


@situation(post("/"))
def single_async_task_of_starlette(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(async_note)

    @app.post("/")
    async def handler() -> Response:
        return JSONResponse({"message": "accepted"}, background=BackgroundTask(task, text="alone"))

    return app


@situation(post("/"))
def fastapis_object_made_by_hand(kit: Kit) -> FastAPI:
    """The old import, which one file still has."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler() -> Response:
        tasks = fastapi.BackgroundTasks()
        tasks.add_task(task, "1")
        tasks.add_task(task, "2")
        return JSONResponse({"message": "accepted"}, background=tasks)

    return app


@situation(
    post("/accepted"),
    wait_for("note after 202: ends"),
    post("/empty"),
    wait_for("note after 204: ends"),
    get("/moved"),
)
def status_codes(kit: Kit) -> FastAPI:
    """202, 204 without a body, and a redirect."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/accepted", status_code=202)
    def accepted(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "after 202")

    @app.post("/empty", status_code=204)
    def empty(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "after 204")

    @app.get("/moved")
    def moved(background_tasks: kit.BackgroundTasks) -> RedirectResponse:
        background_tasks.add_task(task, "after 303")
        return RedirectResponse("/elsewhere", status_code=303)

    return app


@situation(post("/"))
def returned_error(kit: Kit) -> FastAPI:
    """A response that tells of an error was returned, not raised: the tasks run."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> Response:
        background_tasks.add_task(task, "after an error")
        return JSONResponse({"detail": "no such order"}, status_code=404)

    return app


@situation(post("/"))
def status_set_on_the_injected_response(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(response: Response, background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        response.status_code = 418
        response.headers["x-pot"] = "short and stout"
        background_tasks.add_task(task, "after 418")
        return {"message": "a teapot"}

    return app
