"""Which functions may be added, and in which order they run."""

import asyncio
import functools
import threading
from typing import Any

from fastapi import FastAPI, Request

from differential.diary import record
from differential.kit import Kit
from differential.scene import get, post, situation
from differential.tasks import async_note, note


@situation(post("/"))
def several_in_order(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        for number in range(12):
            background_tasks.add_task(task, str(number))
        return {"message": "accepted"}

    return app


@situation(post("/"))
def def_and_async_def_in_order(kit: Kit) -> FastAPI:
    app = kit.app()
    in_thread, on_loop = kit.task(note), kit.task(async_note)

    @app.post("/")
    def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(in_thread, "1")
        background_tasks.add_task(on_loop, "2")
        background_tasks.add_task(on_loop, "3")
        background_tasks.add_task(in_thread, "4")
        return {"message": "accepted"}

    return app


@situation(get("/"))
def called_directly(kit: Kit) -> FastAPI:
    """A function can still be called, awaited and tested as one."""
    app = kit.app()
    in_thread, on_loop = kit.task(note), kit.task(async_note)

    @app.get("/")
    async def handler() -> dict[str, Any]:
        in_thread("called")
        await on_loop("awaited")
        return {"name": in_thread.__name__, "doc": in_thread.__doc__}

    return app


@situation(post("/"))
def anything_that_can_be_called(kit: Kit) -> FastAPI:
    """Plain under every variant: lambdas, closures, partials, methods, objects, classes and built-ins."""
    app = kit.app()

    class Bell:
        def __init__(self, text: str = "a class") -> None:
            self.text = text
            record(f"bell: {text}")

        def ring(self, times: int) -> None:
            record(f"{self.text} rings {times}")

        async def chime(self) -> None:
            record(f"{self.text} chimes")

    class Gong:
        async def __call__(self, by: str) -> None:
            record(f"gong called by {by}")

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        bell = Bell("the bell")
        noted: list[str] = []

        def closure() -> None:
            record(f"closure with {noted}")

        background_tasks.add_task(lambda: record("lambda"))
        background_tasks.add_task(noted.append, "built-in")
        background_tasks.add_task(closure)
        background_tasks.add_task(functools.partial(note, text="partial"))
        background_tasks.add_task(functools.partial(async_note, "async partial"))
        background_tasks.add_task(bell.ring, times=2)
        background_tasks.add_task(bell.chime)
        background_tasks.add_task(Gong(), by="nobody")
        background_tasks.add_task(Bell)
        return {"message": "accepted"}

    return app


def where() -> None:
    record(f"def: in the main thread: {threading.current_thread() is threading.main_thread()}")


async def async_where(app_loop: int) -> None:
    same = id(asyncio.get_running_loop()) == app_loop
    record(f"async def: on the loop of the application: {same}")


@situation(post("/"))
def threads_and_the_loop(kit: Kit) -> FastAPI:
    """`def` runs in a thread, `async def` on the application's own loop."""
    app = kit.app()
    in_thread, on_loop = kit.task(where), kit.task(async_where)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(in_thread)
        background_tasks.add_task(on_loop, id(asyncio.get_running_loop()))
        return {"message": "accepted"}

    return app


@situation(post("/"))
def plain_and_task_functions_in_one_request(kit: Kit) -> FastAPI:
    """Every second function is not decorated under any variant."""
    app = kit.app()
    task, plain = kit.task(note), async_note

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "1")
        background_tasks.add_task(plain, "2")
        background_tasks.add_task(task, "3")
        background_tasks.add_task(plain, "4")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def task_with_options(kit: Kit) -> FastAPI:
    """`@task(retries=0)` in place of `@task`."""
    app = kit.app()
    task = kit.task(note, retries=0)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "with options")
        return {"message": "accepted"}

    return app


@situation(post("/"))
def plain_task_that_adds_another(kit: Kit) -> FastAPI:
    """The list may grow while it is worked off. The function is handed the live object, so it is plain."""
    app = kit.app()

    def again(background_tasks: Any, times: int) -> None:
        record(f"again: {times} left")
        if times:
            background_tasks.add_task(again, background_tasks, times - 1)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(again, background_tasks, 2)
        return {"message": "accepted"}

    return app


@situation(post("/", headers={"x-user": "ada"}))
def plain_task_that_is_given_the_request(kit: Kit) -> FastAPI:
    app = kit.app()

    async def audit(request: Request) -> None:
        record(f"audit {request.method} {request.url.path} from {request.headers['x-user']} {request.state.user}")

    @app.post("/")
    async def handler(request: Request, background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        request.state.user = "ada"
        background_tasks.add_task(audit, request)
        return {"message": "accepted"}

    return app
