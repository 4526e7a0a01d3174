"""The object that tasks are added to, and what it can do."""

import asyncio
from typing import Annotated, Any

import fastapi
import starlette.background
from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse
from starlette.background import BackgroundTask

from differential.diary import record
from differential.kit import Kit
from differential.scene import get, post, situation
from differential.tasks import async_note, note


@situation(post("/"))
def what_add_task_returns(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        returned = background_tasks.add_task(task, "1")
        return {"returned": type(returned).__name__}

    return app


@situation(post("/"))
def tasks_of_the_object_inspected(kit: Kit) -> FastAPI:
    """`.tasks` tells what was added, as some tests and audit middlewares read it."""
    app = kit.app()
    in_thread, on_loop = kit.task(note), kit.task(async_note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> list[Any]:
        before = len(background_tasks.tasks)
        background_tasks.add_task(in_thread, "1")
        background_tasks.add_task(on_loop, text="2")
        added = [(task.func.__name__, task.args, task.kwargs) for task in background_tasks.tasks]
        return [before, *added]

    return app


@situation(post("/"))
def last_task_taken_back(kit: Kit) -> FastAPI:
    """`.tasks` is a list, and what is removed from it does not run."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, "stays")
        background_tasks.add_task(task, "is taken back")
        background_tasks.tasks.pop()
        return {"message": "accepted"}

    return app


@situation(post("/"))
def list_given_to_the_constructor(kit: Kit) -> FastAPI:
    app = kit.app()
    in_thread, on_loop = kit.task(note), kit.task(async_note)

    @app.post("/")
    async def handler() -> JSONResponse:
        tasks = kit.BackgroundTasks([BackgroundTask(in_thread, "1"), BackgroundTask(on_loop, text="2")])
        tasks.add_task(in_thread, "3")
        return JSONResponse({"tasks": len(tasks.tasks)}, background=tasks)

    return app


@situation(post("/"))
def object_called_by_hand(kit: Kit) -> FastAPI:
    """`await tasks()` in a handler."""
    app = kit.app()
    task = kit.task(note)

    @app.post("/")
    async def handler() -> dict[str, str]:
        tasks = kit.BackgroundTasks()
        tasks.add_task(task, "by hand")
        await tasks()
        record("handler")
        return {"message": "accepted"}

    return app


@situation(get("/"))
def classes_of_the_object(kit: Kit) -> FastAPI:
    app = kit.app()

    @app.get("/")
    async def handler(background_tasks: kit.BackgroundTasks) -> dict[str, Any]:
        classes = {
            "Starlette's task": BackgroundTask,
            "Starlette's": starlette.background.BackgroundTasks,
            "FastAPI's": fastapi.BackgroundTasks,
            "the imported": kit.BackgroundTasks,
        }
        made = kit.BackgroundTasks()
        return {
            name: [isinstance(background_tasks, cls), isinstance(made, cls), issubclass(type(made), cls)]
            for name, cls in classes.items()
        } | {"others": [isinstance(None, kit.BackgroundTasks), issubclass(int, kit.BackgroundTasks)]}

    return app


@situation(post("/"))
def subclass_made_by_hand(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(note)

    class Numbered(kit.BackgroundTasks):
        def __init__(self) -> None:
            super().__init__()
            self.number = 0

        def add_task(self, func: Any, *args: Any, **kwargs: Any) -> None:
            self.number += 1
            super().add_task(func, f"{self.number}. {args[0]}", **kwargs)

    @app.post("/")
    async def handler() -> JSONResponse:
        tasks = Numbered()
        tasks.add_task(task, "first")
        tasks.add_task(task, "second")
        return JSONResponse({"number": tasks.number}, background=tasks)

    return app


@situation(post("/"))
def subclass_asked_for(kit: Kit) -> FastAPI:
    """FastAPI gives an object of its own class to whoever asks for a subclass."""
    app = kit.app()
    task = kit.task(note)

    class Special(kit.BackgroundTasks):
        pass

    @app.post("/")
    async def handler(background_tasks: Special) -> dict[str, bool]:
        background_tasks.add_task(task, "asked for by a subclass")
        return {"special": isinstance(background_tasks, Special)}

    return app


@situation(post("/"))
def passed_through_layers(kit: Kit) -> FastAPI:
    """A service that is handed the object, or only its method."""
    app = kit.app()
    task = kit.task(note)

    class Service:
        def __init__(self, background_tasks: kit.BackgroundTasks) -> None:
            self.background_tasks = background_tasks

        async def sign_up(self, name: str) -> None:
            self.background_tasks.add_task(task, f"welcome {name}")
            await asyncio.to_thread(later, self.background_tasks.add_task, name)

    def later(add_task: Any, name: str) -> None:
        add_task(task, f"remind {name}")

    @app.post("/")
    async def handler(service: Annotated[Service, Depends(Service)]) -> dict[str, str]:
        await service.sign_up("ada")
        return {"message": "accepted"}

    return app
