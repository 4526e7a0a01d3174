"""An application that serves with uvicorn, and processes of its fleet, in a folder."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

from afterwards.core.task import Task
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine
from face.processes import Program, eventually, uvicorn, write_application

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {"PYTHONPATH": str(TESTS)}

APPLICATION = """
import sys
from typing import Annotated
from fastapi import Depends, Request, UploadFile
from afterwards import RetryAfter, injected, progress
from dispatch.spool import Spool

spool = Spool({spool})
tasks = Afterwards(app, {options}dispatch=spool)

app.include_router(tasks.health_router())

@task(queue="mail")
async def mail(text: str) -> None:
    write(text)

@app.post("/chain")
async def chain(background: BackgroundTasks) -> None:
    for text in ("first", "second", "third"):
        background.add_task(note, text)
"""


def write_main(folder: Path, more: str = "", *, spool: str = "", options: str = "") -> None:
    """Write ``main.py``."""
    options = f"{options}, " if options else ""
    write_application(folder, APPLICATION.format(spool=spool, options=options), dedent(more))


def server(folder: Path, *arguments: str, **environment: str) -> Program:
    """Serve the application: this process dispatches."""
    return uvicorn(folder, *arguments, **ENVIRONMENT | environment)


def fleet(folder: Path, *arguments: str, **environment: str) -> Program:
    """Start a process of the fleet, and wait until it takes messages."""
    program = Program([sys.executable, "-m", "dispatch.spool", *arguments], folder, **ENVIRONMENT | environment)
    program.says("the fleet's process has started")
    return program


def stored(folder: Path) -> list[Task]:
    """Return all tasks, oldest first, without their logs."""
    return asyncio.run(_stored(folder / "afterwards.db"))


async def _stored(file: Path) -> list[Task]:
    async with SQLiteEngine(file) as engine:
        found = await engine.find(Query(limit=100_000))
        return list(reversed(await engine.get([one.id for one in found])))


def only(folder: Path, condition: Callable[[Task], bool]) -> Task:
    """Return the only task, as soon as a condition holds for it."""

    def look() -> Task | None:
        [one] = stored(folder)
        return one if condition(one) else None

    found = eventually(look)
    assert found is not None
    return found


def ended(task: Task) -> bool:
    return task.state.finished


def sent(folder: Path) -> list[list[str]]:
    """Return what was sent: id, attempt, queue, priority and the process that sent it."""
    file = folder / "sent.txt"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def put(folder: Path, name: str) -> Path:
    """Make a file in the fleet's folder."""
    (folder / "spool").mkdir(exist_ok=True)
    (folder / "spool" / name).touch()
    return folder / "spool" / name
