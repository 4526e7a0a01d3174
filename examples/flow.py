"""Tasks that run after other tasks: in a chain, or after a task of an earlier request.

uvicorn flow:app
curl -X POST localhost:8000/videos/cats
curl -X POST localhost:8000/videos/cats/announce/<the last task's id>
"""

from pathlib import Path

from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, chain, task

app = FastAPI()
tasks = Afterwards(app)


def write(line: str) -> None:
    with Path("steps.txt").open("a") as steps:
        steps.write(f"{line}\n")


@task(retries=2)
async def convert(video: str) -> str:
    if video == "broken":
        raise ValueError("no such codec")
    write(f"{video} converted")
    return video


@task
async def publish(video: str) -> None:
    write(f"{video} published")


@task(expires=3600)  # seconds; after that the announcement is pointless
async def announce(video: str) -> None:
    write(f"{video} announced")


@task(rerun_after_crash=False)  # if its worker dies, it ends as failed: nobody is charged twice
async def charge(video: str) -> None:
    write(f"{video} charged")


@app.post("/videos/{video}")
async def add(video: str):
    converted, published = await chain(convert.options(retries=0).call(video), publish.call(video))
    return {"converted": converted.id, "published": published.id}


@app.post("/videos/{video}/announce/{id}")
async def announce_it(video: str, id: str, background_tasks: BackgroundTasks):
    published = await tasks.get(id)
    background_tasks.add_task(charge.options(after=published), video)
    return {"task": background_tasks.add_task(announce.options(after=published), video).id}


@app.get("/tasks/{id}")
async def show(id: str):
    task = await (await tasks.get(id)).status()
    return {"state": task.state, "reason": task.reason}
