"""Tasks whose first attempt ends when everybody has stopped believing in it."""

import asyncio
import os
import time
from pathlib import Path

from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, Cancel, Retry, Snooze, task
from chaos.known import current_task, hold_shortly

hold_shortly()
app = FastAPI()
tasks = Afterwards(app, f"sqlite:///{os.environ['CHAOS_DATABASE']}", lease=1)
gates = Path(os.environ["CHAOS_GATES"])


@task
async def linger(how: str) -> str:
    """The first attempt waits for its gate and ends as asked; the second one succeeds."""
    attempt = current_task().attempt
    (gates / f"{how} {attempt} began").write_text(str(os.getpid()))
    if attempt == 1 and how == "renews":
        return await _sleep(how)
    if attempt == 1:
        _block(how)
        return _end(how)
    while not (gates / f"{how} may succeed").exists():  # noqa: ASYNC110 (the test opens it)
        await asyncio.sleep(0.01)
    return "second"


async def _sleep(how: str) -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        (gates / f"{how} was stopped").touch()
        raise
    return "late"


def _block(how: str) -> None:
    """Hold the event loop up, so that the worker hears that its lease is lost only when the function has ended."""
    while not (gates / f"{how} may end").exists():
        time.sleep(0.01)


def _end(how: str) -> str:
    match how:
        case "fails" | "retries":
            raise ValueError("late")
        case "cancels":
            raise Cancel("late")
        case "snoozes":
            raise Snooze(60)
        case _:
            return "late"


@app.post("/tasks/{how}")
async def add(how: str, background_tasks: BackgroundTasks) -> str:
    function = linger.options(retries=Retry(5, wait=60)) if how == "retries" else linger
    return background_tasks.add_task(function, how).id
