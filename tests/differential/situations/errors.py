"""Handlers, dependencies and tasks that fail."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from differential.diary import record
from differential.kit import Kit
from differential.scene import get, post, reconnect, situation, wait_for
from differential.tasks import async_note, failing_async_note, failing_note, note


class OutOfTea(Exception):
    pass


@situation(post("/"))
def handler_raises_http_exception(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "never")
        raise HTTPException(409, detail="taken", headers={"x-hint": "another name"})

    return app


@situation(post("/async"), reconnect, post("/sync"))
def handler_raises(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.post("/async")
    async def asynchronous(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "never")
        raise LookupError("on purpose: in async def")

    @app.post("/sync")
    def synchronous(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "never")
        raise LookupError("on purpose: in def")

    return app


@situation(post("/"))
def handler_raises_what_the_application_handles(kit: Kit) -> FastAPI:
    """The tasks of the handler are gone; those that the exception handler gives to its response run."""
    app = kit.app()
    task = kit.task(note)

    @app.exception_handler(OutOfTea)
    async def out_of_tea(request: Request, error: OutOfTea) -> Response:
        tasks = kit.BackgroundTasks()
        tasks.add_task(task, "from the exception handler")
        return JSONResponse({"detail": str(error)}, status_code=418, background=tasks)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "never")
        raise OutOfTea("try coffee")

    return app


@situation(post("/"))
def handler_raises_what_is_a_server_error(kit: Kit) -> FastAPI:
    """Starlette answers from outside of all other middleware, and the answer brings a task."""
    app = kit.app()
    task = kit.task(note)

    @app.exception_handler(Exception)
    async def server_error(request: Request, error: Exception) -> Response:
        tasks = kit.BackgroundTasks()
        tasks.add_task(task, "somebody is told")
        return JSONResponse({"detail": "we are looking into it"}, status_code=500, background=tasks)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "never")
        raise LookupError("on purpose: not handled")

    return app


class Receipt(BaseModel):
    number: int


@situation(post("/"))
def result_that_is_not_the_response_model(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.post("/", response_model=Receipt)
    async def handler(background_tasks: kit.BackgroundTasks) -> Any:
        record("handler")
        background_tasks.add_task(task, "never")
        return {"number": "none"}

    return app


@situation(post("/?pieces=many"))
def request_that_is_not_valid(kit: Kit) -> FastAPI:
    """A dependency had added a task before FastAPI found out."""
    app = kit.app()
    task = kit.task(note)

    def early(background_tasks: kit.BackgroundTasks) -> None:
        record("dependency")
        background_tasks.add_task(task, "never")

    @app.post("/")
    async def handler(_: Annotated[None, Depends(early)], pieces: int) -> None:
        record("handler")

    return app


@situation(post("/"), post("/?known=true"))
def dependency_raises(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    def early(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(task, "from an earlier dependency")

    def user(background_tasks: kit.BackgroundTasks, known: bool = False) -> str:
        background_tasks.add_task(task, "login")
        if not known:
            raise HTTPException(401)
        return "ada"

    @app.post("/")
    async def handler(_: Annotated[None, Depends(early)], name: Annotated[str, Depends(user)]) -> dict[str, str]:
        record("handler")
        return {"name": name}

    return app


@situation(post("/"), wait_for("failing note the post office is closed: starts"), reconnect, post("/after"))
def task_fails(kit: Kit) -> FastAPI:
    """The client has its 200, those behind the failed task do not run, and the server goes on."""
    app = kit.app()
    task, failing = kit.task(note), kit.task(failing_note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "before")
        background_tasks.add_task(failing, "the post office is closed")
        background_tasks.add_task(task, "never")
        return {"message": "accepted"}

    @app.post("/after")
    async def after(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "of the next request")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def async_task_fails(kit: Kit) -> FastAPI:
    app = kit.app()
    task, failing = kit.task(async_note), kit.task(failing_async_note)

    @app.post("/")
    def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(failing, "the line is busy")
        background_tasks.add_task(task, "never")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def task_of_a_dependency_fails(kit: Kit) -> FastAPI:
    """The tasks of a request are one list, whoever added them."""
    app = kit.app()
    task, failing = kit.task(note), kit.task(failing_note)

    def early(background_tasks: kit.BackgroundTasks) -> None:
        background_tasks.add_task(failing, "in the dependency")

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks, _: Annotated[None, Depends(early)]) -> dict[str, str]:
        background_tasks.add_task(task, "never")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def task_fails_behind_http_middleware(kit: Kit) -> FastAPI:
    app = kit.app()
    task, failing = kit.task(async_note), kit.task(failing_async_note)

    @app.middleware("http")
    async def named(request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        response.headers["x-named"] = "yes"
        return response

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(failing, "behind a middleware")
        background_tasks.add_task(task, "never")
        return {"message": "accepted"}

    return app


async def missing(text: str) -> None:
    record("missing: starts")
    raise HTTPException(404, detail=f"on purpose: {text}")


@situation(post("/"))
def task_raises_http_exception(kit: Kit) -> FastAPI:
    """The response has gone; all that is left is the log."""
    app = kit.app()
    task = kit.task(missing)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "too late to say so")
        return {"message": "accepted"}

    return app


async def out_of_tea_at_last() -> None:
    record("out of tea: starts")
    raise OutOfTea("on purpose: it was the last tea")


@situation(post("/"))
def task_raises_what_the_application_handles(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(out_of_tea_at_last)

    @app.exception_handler(OutOfTea)
    async def out_of_tea(request: Request, error: OutOfTea) -> Response:
        record("exception handler")
        return JSONResponse({"detail": str(error)}, status_code=418)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task)
        return {"message": "accepted"}

    return app


@situation(post("/"))
def task_fails_while_a_session_is_open(kit: Kit) -> FastAPI:
    """FastAPI throws what a task raises into the dependencies that are still open."""
    app = kit.app()
    failing = kit.task(failing_note)

    async def session() -> AsyncIterator[str]:
        try:
            yield "session"
        except LookupError:
            record("session: rolled back")
            raise
        else:
            record("session: committed")

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks, _: Annotated[str, Depends(session)]) -> dict[str, str]:
        background_tasks.add_task(failing, "with a session")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def commit_fails_before_the_response(kit: Kit) -> FastAPI:
    """A function-scoped session that fails when it is closed; the tasks were asked for before it."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(
        background_tasks: kit.BackgroundTasks, _: Annotated[str, Depends(_failing_session, scope="function")]
    ) -> dict[str, str]:
        background_tasks.add_task(task, "never")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def commit_fails_before_the_response_in_the_other_order(kit: Kit) -> FastAPI:
    """The same, and the session was asked for first."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(
        _: Annotated[str, Depends(_failing_session, scope="function")], background_tasks: kit.BackgroundTasks
    ) -> dict[str, str]:
        background_tasks.add_task(task, "never")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def commit_fails_after_the_response(kit: Kit) -> FastAPI:
    """A request-scoped session that fails when it is closed: the client has its 200 already."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(
        background_tasks: kit.BackgroundTasks, _: Annotated[str, Depends(_failing_session)]
    ) -> dict[str, str]:
        background_tasks.add_task(task, "of a request whose commit failed")
        return {"message": "accepted"}

    return app


def _failing_session() -> Iterator[str]:
    yield "session"
    record("session: commit")
    raise LookupError("on purpose: the disk is full")


@situation(get("/"))
def dependency_that_turns_errors_into_answers(kit: Kit) -> FastAPI:
    """A dependency catches what the handler raised and raises an `HTTPException`."""
    app = kit.app()
    task = kit.task(note)

    async def guarded(background_tasks: kit.BackgroundTasks) -> AsyncIterator[None]:
        background_tasks.add_task(task, "never")
        try:
            yield
        except OutOfTea as error:
            record("dependency: caught")
            raise HTTPException(418, detail=str(error)) from error

    @app.get("/")
    async def handler(_: Annotated[None, Depends(guarded)]) -> None:
        raise OutOfTea("no tea")

    return app
