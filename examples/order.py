"""The tasks of a request as a chain: each starts when the one before it has succeeded.

uvicorn order:app
curl -X POST localhost:8000/videos/cats
curl -X POST "localhost:8000/videos/broken?damaged=true"
curl -X POST localhost:8000/newsletters
"""

import asyncio
from pathlib import Path

from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, task

app = FastAPI()
tasks = Afterwards(app)


def write(line: str) -> None:
    with Path("steps.txt").open("a") as steps:
        steps.write(f"{line}\n")


@task
async def download(video: str) -> None:
    await asyncio.sleep(0.2)
    write(f"{video}: downloaded")


@task
async def convert(video: str, damaged: bool = False) -> None:
    if damaged:
        raise ValueError(f"{video} is damaged")  # it fails finally: the tasks after it are cancelled
    write(f"{video}: converted")


@task
async def publish(video: str) -> None:
    write(f"{video}: published")


@app.post("/videos/{video}", status_code=202)
async def add_video(video: str, background_tasks: BackgroundTasks, damaged: bool = False):
    background_tasks.add_task(download, video)
    background_tasks.add_task(convert, video, damaged=damaged)
    last = background_tasks.add_task(publish, video)
    return {"published_by": last.id}


@app.get("/tasks/{id}")
async def task_status(id: str):
    record = await (await tasks.get(id)).status()
    return {"state": record.state, "reason": record.reason}


@task
async def send_newsletter(reader: str) -> None:
    if reader == "bob":
        raise ValueError("bob has no address")
    write(f"newsletter for {reader}")


@app.post("/newsletters", status_code=202)
async def send_newsletters(background_tasks: BackgroundTasks):
    background_tasks.configure(ordered=False)  # independent of each other
    for reader in ("ada", "bob", "eve"):
        background_tasks.add_task(send_newsletter, reader)
