"""Scheduled functions (cron and intervals), which run once for each fire in any number of processes.

    pip install "afterwards[cron]"
    uvicorn schedules:app
    curl localhost:8000/schedules
    curl -X POST localhost:8000/reports
    curl -X POST localhost:8000/stock/pause
    curl -X POST localhost:8000/stock/resume

`diary.txt` shows what they did.
"""

from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI

from afterwards import Afterwards, ScheduleRecord, task

app = FastAPI()
tasks = Afterwards(app)


def write(line: str) -> None:
    with Path("diary.txt").open("a") as diary:
        diary.write(f"{line}\n")


@task(cron="0 3 * * MON-FRI", tz="Europe/Rome", retries=3)  # at three, local time in Rome
def make_report(customer: str = "everybody") -> None:
    write(f"report for {customer}")


@task(every=timedelta(seconds=1), missed="skip")  # missed fires are not needed
async def check_stock() -> None:
    write("check the stock")


@app.get("/schedules")
async def show() -> list[ScheduleRecord]:
    return await tasks.schedules.list()


@app.post("/reports", status_code=202)
async def report_now():
    handle = await tasks.schedules.run_now(make_report)
    return {"task": handle.id}


@app.post("/stock/pause")
async def pause():
    await tasks.schedules.pause(check_stock)


@app.post("/stock/resume")
async def resume():
    await tasks.schedules.resume(check_stock)
