"""Failing tasks: retries, timeouts, and a notice after the final failure.

    uvicorn retries:app
    curl -X POST localhost:8000/reports/flaky
    curl -X POST localhost:8000/reports/slow
    curl -X POST localhost:8000/reports/busy

`reports.txt` shows the results.
"""

import asyncio
from pathlib import Path

from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, FailedTask, Retry, RetryAfter, task

app = FastAPI()
tasks = Afterwards(app)
calls = {"flaky": 0, "busy": 0}


def write(line: str) -> None:
    with Path("reports.txt").open("a") as reports:
        reports.write(f"{line}\n")


@task
async def tell_the_team(failed: FailedTask) -> None:
    """Report a failure. This task is stored in the same transaction as the failure, so it cannot be lost."""
    write(f"{failed.name} failed in attempt {failed.attempt}: {failed.message}")


@task(retries=Retry(3, wait=0.2, never=(ValueError,)))  # four attempts at most, with growing and random waits
async def make_flaky_report() -> None:
    calls["flaky"] += 1
    if calls["flaky"] < 3:
        raise ConnectionError("the database is away")
    write(f"flaky report made, call {calls['flaky']}")


@task(retries=Retry(1, wait=0.2), timeout=0.5, on_failure=tell_the_team)  # seconds that one attempt may take
async def make_slow_report() -> None:
    await asyncio.sleep(60)


@task(retries=1)
async def make_busy_report() -> None:
    calls["busy"] += 1
    if calls["busy"] == 1:
        raise RetryAfter(0.3, "the service asks for a pause")  # the next attempt starts when the service allows it
    write("busy report made")


REPORTS = {"flaky": make_flaky_report, "slow": make_slow_report, "busy": make_busy_report}


@app.post("/reports/{kind}", status_code=202)
async def make_report(kind: str, background_tasks: BackgroundTasks):
    background_tasks.add_task(REPORTS[kind])
    return {"report": kind}
