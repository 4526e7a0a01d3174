"""Under the pytest plugin schedules do not fire by themselves."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterwards import Afterwards
from afterwards.testing import assert_enqueued, drain
from schedules import ticking
from schedules.ticking import nightly

app = FastAPI()
tasks = Afterwards(app, "sqlite:///must-not-appear.db")


@app.post("/run")
async def run() -> str:
    return (await tasks.schedules.run_now(nightly)).id


@app.post("/pause")
async def pause() -> bool:
    await tasks.schedules.pause(nightly)
    return {one.name: one.paused for one in await tasks.schedules.list()}["nightly"]


@pytest.fixture(autouse=True)
def nothing_said() -> Iterator[None]:
    ticking.said.clear()
    yield
    ticking.said.clear()


def test_a_drain_of_what_is_scheduled_ends_and_fires_nothing() -> None:
    with TestClient(app):
        drain(scheduled=True)
    assert ticking.said == []


def test_what_is_run_now_runs_within_the_request() -> None:
    TestClient(app).post("/run").raise_for_status()
    assert ticking.said == ["nightly today"]
    assert_enqueued(nightly)


def test_it_can_be_paused() -> None:
    assert TestClient(app).post("/pause").json() is True
