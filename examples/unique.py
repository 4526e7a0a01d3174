"""Unique tasks, and idempotent requests.

uvicorn unique:app
curl -X POST localhost:8000/pages/home/refresh
curl -X POST localhost:8000/pages/home/refresh
curl -X POST -H 'Idempotency-Key: "order-1"' localhost:8000/orders
curl -X POST -H 'Idempotency-Key: "order-1"' localhost:8000/orders
"""

import asyncio
from pathlib import Path

from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, task

app = FastAPI()
tasks = Afterwards(app)


def write(line: str) -> None:
    with Path("done.txt").open("a") as done:
        done.write(f"{line}\n")


@task(unique="{page}")  # while one waits or runs; True means all arguments
async def refresh(page: str, why: str) -> None:
    await asyncio.sleep(0.3)
    write(f"refreshed {page}: {why}")


@task(idempotency_key="bill-{number}")  # until its record is deleted, a week after it has finished
async def send_bill(number: int) -> None:
    write(f"bill {number}")


@task
async def send_goods() -> None:
    write("goods")


@app.post("/pages/{page}/refresh")
async def refresh_page(page: str, background_tasks: BackgroundTasks, why: str = "asked"):
    handle = background_tasks.add_task(refresh, page, why)
    await background_tasks.flush()
    return {"task": handle.id}  # of the existing task, if there is one


@app.post("/orders")
async def order(background_tasks: BackgroundTasks):
    background_tasks.configure(idempotency_key=True)  # from the request's header, if present
    handle = background_tasks.add_task(send_goods)
    background_tasks.add_task(send_bill, 1)
    return {"task": handle.id}


@app.get("/bills/{number}")
async def show(number: int):
    return await (await tasks.get(key=f"bill-{number}")).status()
