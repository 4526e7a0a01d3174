"""Queues and priorities; a queue that is paused, and one that is full.

    uvicorn queues:app
    curl -X POST localhost:8000/pause
    curl -X POST "localhost:8000/mails?text=news"
    curl -X POST "localhost:8000/mails?text=urgent&priority=50"
    curl -X POST localhost:8000/resume

`mails.txt` shows that what is urgent came first. A fourth mail that waits is refused with 429.
"""

from pathlib import Path

from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, task

app = FastAPI()
tasks = Afterwards(app, concurrency=1, max_queued={"mail": 3})  # per queue; a number would be for each


@task(queue="mail")
def send_mail(text: str) -> None:
    with Path("mails.txt").open("a") as mails:
        mails.write(f"{text}\n")


@app.post("/mails")
async def add_mail(text: str, background_tasks: BackgroundTasks, priority: int = 0):
    background_tasks.add_task(send_mail.options(priority=priority), text)  # higher runs first


@app.post("/pause")
async def pause():
    await tasks.pause(queue="mail")  # or a function: tasks.pause(send_mail)


@app.post("/resume")
async def resume():
    await tasks.resume(queue="mail")
    return await tasks.paused()
