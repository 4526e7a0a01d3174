"""The same application as ``bare``, by the README: one installation, one decorator."""

from fastapi import BackgroundTasks, FastAPI

from afterwards import Afterwards, task

app = FastAPI()
Afterwards(app)


@task
async def nothing(number: int) -> None:
    """Do nothing; the file knows how many did."""


@app.post("/tasks")
async def add(background_tasks: BackgroundTasks) -> dict[str, bool]:
    background_tasks.add_task(nothing, 1)
    return {"accepted": True}
