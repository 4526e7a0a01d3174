"""The same application as ``bare``, by the README: one import, one installation, one decorator."""

from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, task

app = FastAPI()
Afterwards(app)


@task
async def nothing(number: int) -> None:
    """Do nothing; the file knows how many did."""


@app.post("/tasks")
async def add(background_tasks: BackgroundTasks) -> dict[str, bool]:
    background_tasks.add_task(nothing, 1)
    return {"accepted": True}
