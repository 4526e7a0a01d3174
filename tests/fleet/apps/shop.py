"""An application with a function for each thing that a fleet must be able to do."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from celery import Celery
from fastapi import Depends, FastAPI, UploadFile
from pydantic import BaseModel

from afterwards import Afterwards, BackgroundTasks, Retry, TaskRecord, injected, progress, task
from afterwards.celery import CeleryDispatch

QUEUE = os.environ["FLEET_QUEUE"]  # brokers are shared between tests
FOLDER = Path(os.environ["FLEET_FOLDER"])


def write(line: str) -> None:
    with (FOLDER / "diary.txt").open("a") as diary:
        diary.write(f"{line}\n")


def opened(gate: str) -> bool:
    return (FOLDER / gate).exists()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    if opened("no-lifespan"):
        raise ConnectionError("the warehouse does not answer")
    write(f"{os.getpid()} begins")
    app.state.greeting = "hello"
    yield {}
    write(f"{os.getpid()} ends")


celery_app = Celery("shop", broker=os.environ["FLEET_BROKER"])
celery_app.conf.update(
    task_default_queue=QUEUE,
    task_queue_max_priority=9,
    worker_prefetch_multiplier=1,
    accept_content=[os.environ.get("FLEET_ACCEPT", "json")],
    worker_hijack_root_logger="FLEET_OWN_LOGGING" not in os.environ,
    broker_connection_retry_on_startup=True,
    task_soft_time_limit=float(os.environ.get("FLEET_SOFT_LIMIT", 0)) or None,
    worker_max_tasks_per_child=int(os.environ.get("FLEET_TASKS_PER_CHILD", 0)) or None,
)
app = FastAPI(lifespan=lifespan)
tasks = Afterwards(
    app,
    dispatch=CeleryDispatch(celery_app, again_after=float(os.environ.get("FLEET_AGAIN", 60))),
    grace=float(os.environ.get("FLEET_GRACE", 20)),
    lease=float(os.environ.get("FLEET_LEASE", 30)),
)


def note_of(app: FastAPI) -> str:
    return str(app.state.greeting)


@task(queue=QUEUE)
async def note(text: str) -> str:
    write(f"{text} in {os.getpid()}")
    return text


@task(queue=QUEUE)
def note_in_thread(text: str) -> str:
    write(f"{text} in {os.getpid()}")
    return text


@task(queue=QUEUE, run_in="process")
def note_in_process(text: str) -> int:
    write(f"{text} in {os.getpid()}")
    return os.getppid()


@task(queue=f"{QUEUE}-other")
async def note_elsewhere(text: str) -> str:
    write(f"{text} in {os.getpid()}")
    return text


@task(queue=QUEUE, retries=Retry(1, wait=0.1))
async def second_try(text: str) -> None:
    write(f"{text} tried")
    if not opened(f"{text}-tried"):
        (FOLDER / f"{text}-tried").touch()
        raise ValueError("not yet")


@task(queue=QUEUE)
async def fail(text: str) -> None:
    raise ValueError(text)


@task(queue=QUEUE, timeout=0.3)
async def too_long() -> None:
    await asyncio.sleep(600)


@task(queue=QUEUE)
async def gated(text: str) -> None:
    write(f"{text} began in {os.getpid()}")
    while not opened(text):  # noqa: ASYNC110  # the test opens it
        await asyncio.sleep(0.02)
    write(f"{text} ended")


@task(queue=QUEUE)
def gated_in_thread(text: str) -> None:
    write(f"{text} began in {os.getpid()}")
    while not opened(text):
        time.sleep(0.02)
    write(f"{text} ended")


@task(queue=QUEUE, max_concurrency=1)
async def one_at_a_time(text: str) -> None:
    write(f"{text} began")
    await asyncio.sleep(0.1)
    write(f"{text} ended")


@task(queue=QUEUE)
async def with_progress(text: str) -> None:
    with progress(total=7, desc=text) as bar:
        bar.update(3)
        while not opened(text):  # noqa: ASYNC110  # the test opens it
            await asyncio.sleep(0.02)


async def session() -> AsyncIterator[str]:
    write("session opened")
    yield "session"
    write("session closed")


@task(queue=QUEUE)
async def with_session(text: str, opened_session: Annotated[str, Depends(session)] = injected()) -> str:
    return f"{text} with a {opened_session}"


@task(queue=QUEUE)
async def with_file(upload: UploadFile) -> str:
    return f"{upload.filename}: {(await upload.read()).decode()}"


@task(queue=f"{QUEUE}-ticks", every=2)
async def tick() -> None:
    write("tick")


FUNCTIONS: dict[str, Any] = {
    function.name: function
    for function in (
        note,
        note_in_thread,
        note_in_process,
        note_elsewhere,
        second_try,
        fail,
        too_long,
        gated,
        gated_in_thread,
        one_at_a_time,
        with_progress,
        with_session,
    )
}


class Call(BaseModel):
    function: str
    text: str | None = None
    options: dict[str, Any] = {}


@app.post("/calls")
async def add(calls: list[Call], background_tasks: BackgroundTasks, ordered: bool = True) -> list[str]:
    background_tasks.configure(ordered=ordered)
    return [
        background_tasks.add_task(
            FUNCTIONS[call.function].options(**call.options), *([] if call.text is None else [call.text])
        ).id
        for call in calls
    ]


@app.post("/file")
async def add_file(file: UploadFile, background_tasks: BackgroundTasks) -> str:
    return background_tasks.add_task(with_file, file).id


@app.get("/records/{id}")
async def record(id: str) -> TaskRecord:
    return await (await tasks.get(id)).status()


@app.post("/cancel/{id}")
async def cancel(id: str) -> TaskRecord:
    return await (await tasks.get(id)).cancel()


@app.get("/workers")
async def workers() -> list[Any]:
    return [asdict(worker) for worker in await (await tasks.client.open()).workers(timedelta(minutes=1))]


app.include_router(tasks.health_router())
