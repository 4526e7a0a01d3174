"""Queues and priorities, a paused queue and a full one.

    uvicorn queues:app
    curl -X POST localhost:8000/pause
    curl -X POST "localhost:8000/mails?text=news"
    curl -X POST "localhost:8000/mails?text=urgent&priority=50"
    curl -X POST localhost:8000/resume

`mails.txt` shows that the urgent mail came first. When three mails wait, a fourth is refused with 429.
"""

from pathlib import Path

from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, task

app = FastAPI()
tasks = Afterwards(app, concurrency=1, max_queued={"mail": 3})  # for this queue; a number applies to each queue


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
