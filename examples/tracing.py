"""Propagation from a request to its tasks: OpenTelemetry's trace, and listed context variables.

uvicorn tracing:app
curl -X POST -H "X-Request-Id: abc" localhost:8000/orders
"""

from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header

from afterwards import Afterwards, BackgroundTasks, task

request_id: ContextVar[str] = ContextVar("request_id", default="-")

app = FastAPI()
tasks = Afterwards(app, propagate=[request_id])  # the request's trace is always propagated


@task
def pack() -> None:
    with Path("log.txt").open("a") as log:
        log.write(f"{request_id.get()} packed\n")


@app.post("/orders")
async def order(background_tasks: BackgroundTasks, x_request_id: Annotated[str, Header()] = "-"):
    request_id.set(x_request_id)
    background_tasks.add_task(pack)
