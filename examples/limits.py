"""Concurrency and rate limits, which apply to all processes together.

    uvicorn limits:app --workers 2
    curl -X POST "localhost:8000/reports?user=ada&count=5"
    curl -X POST "localhost:8000/calls?count=5"

`log.txt` shows when each task started.
"""

import asyncio
import time
from pathlib import Path

from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, task

app = FastAPI()
tasks = Afterwards(app)


def write(line: str) -> None:
    with Path("log.txt").open("a") as log:
        log.write(f"{time.time():.3f} {line}\n")


@task(max_concurrency=1, concurrency_key="{user}")  # one at a time for each user; a template or a function
async def make_report(user: str, number: int) -> None:
    write(f"begin {user} {number}")
    await asyncio.sleep(0.05)
    write(f"end {user} {number}")


@task(rate_limit="2/1s")  # two start in any second; also "100/m", "10/30s"
async def call_service(number: int) -> None:
    write(f"call {number}")


@app.post("/reports")
async def reports(user: str, count: int, background_tasks: BackgroundTasks):
    background_tasks.configure(ordered=False)  # without a chain: only the limit applies
    for number in range(count):
        background_tasks.add_task(make_report, user, number)


@app.post("/calls")
async def calls(count: int, background_tasks: BackgroundTasks):
    background_tasks.configure(ordered=False)
    for number in range(count):
        background_tasks.add_task(call_service, number)
