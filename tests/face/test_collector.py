"""What waiting requests do to the threshold of Python's garbage collector, and undo when they wait no longer."""

import asyncio
import gc
import os
import threading
from collections.abc import Iterator, Sequence

import pytest
from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, engines
from afterwards.client.collector import OBJECTS, STEP, Allowance
from afterwards.core.errors import EngineUnavailable
from afterwards.core.task import NewTask, Task
from afterwards.engine import Claim
from afterwards.engines.memory import MemoryEngine
from face.diary import note
from face.serving import serving, until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

USUAL = (700, 10, 10)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*USUAL)
    yield
    gc.set_threshold(*before)


class Slow(MemoryEngine):
    """Stores when it is told to, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.go_on = asyncio.Event()
        self.down = False

    async def enqueue(self, tasks: Sequence[NewTask], *, claim: Claim | None = None) -> list[Task]:
        self.asked += 1
        await self.go_on.wait()
        if self.down:
            raise EngineUnavailable("out of order")
        return await super().enqueue(tasks, claim=claim)


@pytest.mark.parametrize("down", [False, True])
async def test_it_is_raised_while_requests_wait_and_is_as_it_was_afterwards(said: list[str], down: bool) -> None:
    engine, app = Slow(), FastAPI()
    with engines.replaced(lambda url: engine):
        Afterwards(app, "memory://")

        @app.get("/")
        async def handler(tasks: BackgroundTasks) -> None:
            tasks.add_task(note, "run")

        async with serving(app) as http:
            asked = [asyncio.create_task(http.get("/")) for _ in range(STEP + 1)]
            await until(lambda: engine.asked == STEP + 1)
            raised = gc.get_threshold()
            engine.down = down
            engine.go_on.set()
            answers = [await one for one in asked]
            after = gc.get_threshold()
    assert raised == (700 + 2 * STEP * OBJECTS, 10, 10)
    assert after == USUAL
    assert {one.status_code for one in answers} == {503 if down else 200}


@pytest.fixture
def allowance() -> Allowance:
    return Allowance()


def wait(allowance: Allowance, requests: int) -> int:
    """The threshold when so many more requests wait."""
    for _ in range(requests):
        allowance.begin()
    return gc.get_threshold()[0]


def go_on(allowance: Allowance, requests: int) -> int:
    """The threshold when so many wait no longer."""
    for _ in range(requests):
        allowance.end()
    return gc.get_threshold()[0]


def test_it_is_raised_by_what_the_waiting_keep_alive(allowance: Allowance) -> None:
    for waiting in range(1, 5 * STEP):
        assert wait(allowance, 1) >= 700 + waiting * OBJECTS
    assert gc.get_threshold() == (700 + 5 * STEP * OBJECTS, 10, 10)


def test_where_the_waiting_become_few_it_sinks(allowance: Allowance) -> None:
    wait(allowance, 8 * STEP)
    sunk = go_on(allowance, 8 * STEP - 1)
    assert 700 + OBJECTS <= sunk < 700 + 4 * STEP * OBJECTS
    assert go_on(allowance, 1) == 700


def test_what_somebody_chose_before_is_raised_and_comes_back(allowance: Allowance) -> None:
    gc.set_threshold(50_000, 20, 30)
    assert wait(allowance, 1) == 50_000 + STEP * OBJECTS
    go_on(allowance, 1)
    assert gc.get_threshold() == (50_000, 20, 30)


def test_what_somebody_chooses_meanwhile_stays(allowance: Allowance) -> None:
    wait(allowance, 1)
    gc.set_threshold(50_000, 20, 30)
    go_on(allowance, 1)
    assert gc.get_threshold() == (50_000, 20, 30)


def test_a_collector_that_is_off_stays_off(allowance: Allowance) -> None:
    gc.set_threshold(0)
    assert wait(allowance, 1) == 0
    assert go_on(allowance, 1) == 0


def test_what_somebody_puts_back_is_not_taken_for_a_choice(allowance: Allowance) -> None:
    wait(allowance, 1)
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 30)
    go_on(allowance, 1)
    gc.set_threshold(*before)
    wait(allowance, 1)
    go_on(allowance, 1)
    assert gc.get_threshold() == USUAL


def test_requests_of_all_threads_count(allowance: Allowance) -> None:
    wait(allowance, 1)
    thread = threading.Thread(target=wait, args=(allowance, STEP))
    thread.start()
    thread.join()
    assert gc.get_threshold()[0] == 700 + 2 * STEP * OBJECTS
    assert go_on(allowance, STEP + 1) == 700


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_in_a_child_nobody_waits(allowance: Allowance) -> None:
    wait(allowance, 1)
    child = os.fork()
    if child == 0:
        began = gc.get_threshold() == USUAL
        os._exit(0 if began and wait(allowance, 1) > 700 and go_on(allowance, 1) == 700 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert go_on(allowance, 1) == 700
