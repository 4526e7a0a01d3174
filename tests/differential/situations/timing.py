"""When tasks run: after whose response, beside which other requests."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from differential.client import Client
from differential.diary import gate, gate_in_a_thread, record
from differential.kit import Kit
from differential.scene import get, open_gate, post, situation, wait_for
from differential.tasks import note


async def patient(name: str) -> None:
    record(f"{name}: waits")
    await gate(name)
    record(f"{name}: goes on")


def patient_in_a_thread(name: str) -> None:
    record(f"{name}: waits")
    gate_in_a_thread(name)
    record(f"{name}: goes on")


@situation(post("/"), open_gate("the client has its response"))
def response_does_not_wait_for_an_async_task(kit: Kit) -> FastAPI:
    """The task ends only when the client says that it has the whole response."""
    app = kit.app()
    task = kit.task(patient)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "the client has its response")
        return {"message": "accepted"}

    return app


@situation(post("/"), open_gate("the client has its response"))
def response_does_not_wait_for_a_task_in_a_thread(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(patient_in_a_thread)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "the client has its response")
        return {"message": "accepted"}

    return app


@situation(
    post("/slow"),
    wait_for("the second request is done: waits"),
    post("/quick"),
    wait_for("note quick: ends"),
    get("/"),
    open_gate("the second request is done"),
)
def requests_do_not_wait_for_the_tasks_of_others(kit: Kit) -> FastAPI:
    """On the same connection, while a task of the first request runs; its second task waits for its first alone."""
    app = kit.app()
    slow, quick = kit.task(patient), kit.task(note)

    @app.post("/slow")
    async def slow_one(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(slow, "the second request is done")
        background_tasks.add_task(quick, "behind the slow one")
        return {"message": "accepted"}

    @app.post("/quick")
    async def quick_one(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(quick, "quick")
        return {"message": "accepted"}

    @app.get("/")
    def without_tasks() -> dict[str, str]:
        return {"message": "at once"}

    return app


def _stream_and_ask_in_between(client: Client) -> None:
    with client.stream("GET", "/stream") as pieces:
        client.say(next(pieces))
        client.ask("POST", "/quick")
        client.wait_for("note quick: ends")
        client.open_gate("the stream may end")
        client.say("".join(pieces))


@situation(_stream_and_ask_in_between)
def task_of_a_stream_that_takes_its_time(kit: Kit) -> FastAPI:
    """The tasks of later requests run while it streams, its own does not."""
    app = kit.app()
    task = kit.task(note)

    @app.get("/stream")
    async def stream(background_tasks: kit.BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "first "
            await gate("the stream may end")
            yield "last"

        background_tasks.add_task(task, "of the stream")
        return StreamingResponse(body(), media_type="text/plain")

    @app.post("/quick")
    async def quick(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "quick")
        return {"message": "accepted"}

    return app


@situation(
    post("/slow"),
    wait_for("session: commits"),
    post("/quick"),
    wait_for("note quick: ends"),
    open_gate("the commit may end"),
)
def commit_that_takes_its_time(kit: Kit) -> FastAPI:
    """The client has its response, the request-scoped session is not closed yet, and another request comes and goes."""
    app = kit.app()
    task = kit.task(note)

    async def session() -> AsyncIterator[None]:
        yield
        record("session: commits")
        await gate("the commit may end")
        record("session: has committed")

    @app.post("/slow")
    async def slow(background_tasks: kit.BackgroundTasks, _: Annotated[None, Depends(session)]) -> dict[str, str]:
        background_tasks.add_task(task, "slow")
        return {"message": "accepted"}

    @app.post("/quick")
    async def quick(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "quick")
        return {"message": "accepted"}

    return app


def _leave_before_the_answer(client: Client) -> None:
    client.ask_and_leave("/")
    client.wait_for("handler: begins")
    client.open_gate("the client has left")


@situation(_leave_before_the_answer)
def client_that_leaves_before_the_answer(kit: Kit) -> FastAPI:
    """The handler goes on to its end, and its tasks run."""
    app = kit.app()
    task = kit.task(note)

    @app.get("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        record("handler: begins")
        await gate("the client has left")
        background_tasks.add_task(task, "for nobody")
        return {"message": "accepted"}

    return app
