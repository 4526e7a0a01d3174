"""An application as FastAPI's tutorial leads to it: a handler that sends a Celery task."""

import os
from threading import Lock

from celery import Celery
from fastapi import FastAPI

celery_app = Celery("delays", broker=os.environ["BENCHMARK_BROKER"])
celery_app.conf.update(task_default_queue="delays", task_ignore_result=True)
app = FastAPI()
lock = Lock()
sent = 0


@celery_app.task
def nothing(number: int) -> None:
    """Do nothing but count the run: a byte in a file."""
    file = os.open(os.environ["BENCHMARK_COUNT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b".")
    os.close(file)


@app.post("/tasks")
def add() -> dict[str, bool]:
    global sent
    nothing.delay(1)
    with lock:
        sent += 1
    return {"accepted": True}


@app.get("/sent")
async def tell() -> int:
    """Return how many tasks were sent."""
    return sent
