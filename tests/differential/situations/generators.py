"""Handlers that are generators: newer FastAPI versions stream what they yield, as lines of JSON or as events."""

from collections.abc import AsyncIterable, Iterable

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse

from differential.diary import record
from differential.kit import Kit
from differential.scene import get, situation, wait_for
from differential.tasks import note


@situation(get("/async"), wait_for("note 2: ends"), get("/sync"))
def handler_that_yields_lines(kit: Kit) -> FastAPI:
    """The handler runs while its response is on the way, and adds then."""
    app = kit.app()
    task = kit.task(note)

    @app.get("/async")
    async def asynchronous(background_tasks: kit.BackgroundTasks) -> AsyncIterable[int]:
        for number in range(3):
            background_tasks.add_task(task, str(number))
            yield number
        record("end of the lines")

    @app.get("/sync")
    def synchronous(background_tasks: kit.BackgroundTasks) -> Iterable[int]:
        background_tasks.add_task(task, "in a thread")
        yield 1
        record("end of the line")

    return app


@situation(get("/"))
def handler_that_yields_events(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.get("/", response_class=EventSourceResponse)
    async def handler(background_tasks: kit.BackgroundTasks) -> AsyncIterable[dict[str, int]]:
        for number in range(2):
            yield {"number": number}
            background_tasks.add_task(task, str(number))
        record("end of the events")

    return app
