"""The application of ``bare`` with an installation and a decorator, as in the README."""

from fastapi import BackgroundTasks, FastAPI

from afterwards import Afterwards, task

app = FastAPI()
Afterwards(app)


@task
async def nothing(number: int) -> None:
    """Do nothing; the file counts the tasks."""


@app.post("/tasks")
async def add(background_tasks: BackgroundTasks) -> dict[str, bool]:
    background_tasks.add_task(nothing, 1)
    return {"accepted": True}
