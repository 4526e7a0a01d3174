"""The application of ``durable``, whose tasks run on Celery workers."""

import os

from celery import Celery
from fastapi import BackgroundTasks, FastAPI

from afterwards import Afterwards, task
from afterwards.celery import CeleryDispatch

celery_app = Celery("fleet", broker=os.environ["BENCHMARK_BROKER"])
celery_app.conf.task_default_queue = "default"
app = FastAPI()
Afterwards(app, dispatch=CeleryDispatch(celery_app, ahead=2000))


@task
def nothing(number: int) -> None:
    """Do nothing; the store counts the tasks."""


@app.post("/tasks")
async def add(background_tasks: BackgroundTasks) -> dict[str, bool]:
    background_tasks.add_task(nothing, 1)
    return {"accepted": True}
