"""In an application's tests, lines are in the records, too."""

import logging

from fastapi import BackgroundTasks, FastAPI
from fastapi.testclient import TestClient

from afterwards import Afterwards, task
from afterwards.testing import assert_enqueued
from afterwards.testing.inline import memory

app = FastAPI()
tasks = Afterwards(app)


@task
def pack(order: int) -> None:
    logging.getLogger("shop").warning("packing order %d", order)


@app.post("/{order}")
def handler(order: int, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(pack, order)


def test_what_a_task_logs_in_a_test_is_in_its_record() -> None:
    before = logging.Logger.callHandlers
    TestClient(app).post("/7")
    assert_enqueued(pack, order=7)
    [stored] = memory().tasks
    assert [line.message for line in stored.logs] == ["packing order 7"]
    assert logging.Logger.callHandlers is before
