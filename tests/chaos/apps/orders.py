"""Requests that leave chains of tasks behind: some in threads, some that fail once or for good."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, Header
from pydantic import BaseModel

from afterwards import Afterwards, BackgroundTasks, Retry, task
from chaos.celery_fleet import a_fleet
from chaos.checker import ON_PURPOSE
from chaos.history import Diary, What
from chaos.known import current_task, hold_shortly

hold_shortly()
app = FastAPI()
celery_app, dispatch = a_fleet()
tasks = Afterwards(app, lease=float(os.environ.get("CHAOS_LEASE", 30)), dispatch=dispatch)  # on AFTERWARDS_URL
diary = Diary(Path(os.environ["CHAOS_HISTORY"]))


class Step(BaseModel):
    kind: Literal["plainly", "in_a_thread", "at_the_second_try", "never"]
    seconds: float


class Order(BaseModel):
    steps: list[Step]
    ordered: bool = True


@contextmanager
def written_down() -> Iterator[None]:
    diary.write(current_task(), What.START)
    yield
    diary.write(current_task(), What.END)


@task
async def plainly(order: int, position: int, seconds: float) -> int:
    with written_down():
        await asyncio.sleep(seconds)
    return current_task().attempt


@task
def in_a_thread(order: int, position: int, seconds: float) -> int:
    with written_down():
        time.sleep(seconds)
    return current_task().attempt


@task(retries=Retry(3, wait=0.1))
async def at_the_second_try(order: int, position: int, seconds: float) -> int:
    with written_down():
        await asyncio.sleep(seconds)
        if current_task().failed == 0:
            raise ConnectionError(f"{ON_PURPOSE}: only the second try succeeds")
    return current_task().attempt


@task(retries=Retry(1, wait=0.1))
async def never(order: int, position: int, seconds: float) -> None:
    with written_down():
        await asyncio.sleep(seconds)
        raise ValueError(f"{ON_PURPOSE}: this never succeeds")


FUNCTIONS = {function.name: function for function in (plainly, in_a_thread, at_the_second_try, never)}


@app.post("/orders/{number}")
async def order(number: int, order: Order, background_tasks: BackgroundTasks) -> list[str]:
    background_tasks.configure(ordered=order.ordered, idempotency_key=True)
    return [
        background_tasks.add_task(FUNCTIONS[step.kind], number, position, step.seconds).id
        for position, step in enumerate(order.steps)
    ]


@app.post("/enqueued/{number}")
async def enqueue(number: int, order: Order, idempotency_key: Annotated[str | None, Header()] = None) -> list[str]:
    """One task that belongs to no request."""
    [step] = order.steps
    function = FUNCTIONS[step.kind]
    if idempotency_key:
        function = function.options(idempotency_key=idempotency_key)
    handle = await function.enqueue(number, 0, step.seconds)
    return [handle.id]
