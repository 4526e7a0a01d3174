"""A small application for the tests in test_payments.py.

uvicorn payments:app
curl -X POST "localhost:8000/orders/1?cents=250"

pytest test_payments.py
"""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, task

app = FastAPI()
tasks = Afterwards(app)


def execute(statement: str, *values: object) -> list[tuple[int]]:
    with closing(sqlite3.connect("payments.db")) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS payments (order_number INTEGER PRIMARY KEY, cents INTEGER)")
        return database.execute(statement, values).fetchall()


def paid() -> int:
    [(total,)] = execute("SELECT coalesce(sum(cents), 0) FROM payments")
    return total


def write(line: str) -> None:
    with Path("mails.txt").open("a") as mails:
        mails.write(f"{line}\n")


@task(retries=3)
def charge(order: int, cents: int) -> None:
    """Charge an order. It may run twice after a crash; the order's number makes it idempotent."""
    execute("INSERT OR IGNORE INTO payments VALUES (?, ?)", order, cents)


@task(rerun_after_crash=False)  # rather no mail than two
def remind(order: int) -> None:
    write(f"Order {order}: are you content?")


@task(every=timedelta(days=1))
def report() -> None:
    write(f"Paid so far: {paid()}")


@app.post("/orders/{order}", status_code=202)
async def buy(order: int, cents: int, background_tasks: BackgroundTasks):
    background_tasks.add_task(charge, order, cents)
    background_tasks.add_task(remind.options(delay=timedelta(days=3)), order)
