"""``Afterwards(app, dispatch=...)``: what it accepts, and what it makes of a process."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterwards import Afterwards, BackgroundTasks, State
from afterwards.core.errors import InvalidOption
from afterwards.core.routing import ALIVE
from afterwards.core.task import Lease
from afterwards.dispatch.fleet import Serve
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.web.runners import fleet_of
from dispatch.pool import Pool, a_call
from face.diary import note
from face.serving import records, until, until_async, working

pytestmark = pytest.mark.anyio
real = pytest.mark.afterwards(real=True)


class Attached(Pool):
    """Keeps what it was given to run the application's tasks."""

    serve: Serve

    def attach(self, serve: Serve) -> None:
        self.serve = serve


class Unlimited(Attached):
    def __init__(self) -> None:
        super().__init__()
        self.again_after = timedelta(days=2)


class Nothing(Attached):
    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("celery", "dispatch='celery': give a fleet, as afterwards.celery.CeleryDispatch"),
        (Pool, r"dispatch=Pool: give an object of this class, as Pool\(...\)"),
        (Unlimited(), "Unlimited.again_after=.*: give a timedelta, at most a day"),
        (Nothing(), "Nothing.ahead=0: give a whole number, at least 1"),
    ],
)
def test_a_value_that_is_no_fleet_is_refused(value: Any, said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        Afterwards(dispatch=value)


def test_the_fleet_is_attached_once_when_it_is_installed() -> None:
    fleet = Attached()
    tasks = Afterwards(dispatch=fleet)
    assert not hasattr(fleet, "serve")
    tasks.install(FastAPI())
    assert callable(fleet.serve)


@real
@pytest.mark.parametrize("worker", [True, False])
async def test_a_store_that_no_other_process_sees_is_refused_at_the_start(worker: bool) -> None:
    with pytest.raises(InvalidOption, match=r"dispatch=Attached: tasks in memory://.* are visible to one process only"):
        async with working("memory://", dispatch=Attached(), worker=worker):
            pass


def test_tests_stay_tests(said: list[str]) -> None:
    """Under pytest a request returns after the first attempt of its tasks, and nothing is sent."""
    app, fleet = FastAPI(), Attached()
    Afterwards(app, "memory://", dispatch=fleet)

    @app.post("/")
    async def add(background: BackgroundTasks) -> None:
        background.add_task(note, "one")

    with TestClient(app) as client:
        client.post("/")
        assert (said, fleet.sent) == (["one"], [])


@real
async def test_a_process_that_dispatches_offers_no_slots(url: str, said: list[str]) -> None:
    fleet = Attached()
    async with working(url, dispatch=fleet) as tasks:
        assert tasks.client.worker is None
        assert fleet_of(tasks.client) is fleet
        await note.enqueue("one")
        await until(lambda: fleet.sent)
        assert [(task.state, task.attempt) for task in await records(tasks)] == [(State.QUEUED, 0)]
        assert tasks.healthy
    assert said == []


@real
async def test_it_sends_only_from_its_queues(url: str) -> None:
    fleet = Attached()
    async with working(url, dispatch=fleet, queues=["mail"]):
        await note.enqueue("one")
        await note.options(queue="mail").enqueue("two")
        await until(lambda: fleet.sent)
    assert [one.queue for one in fleet.sent] == ["mail"]


def in_a_thread(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine on an event loop in a thread of its own, as a process of a fleet does. Raises what it raises."""
    raised: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    for error in raised:
        raise error


@real
def test_a_process_of_the_fleet_runs_what_is_brought(url: str, said: list[str], tmp_path: Path) -> None:
    app, fleet = FastAPI(), Attached()
    tasks = Afterwards(app, url, dispatch=fleet)
    new = a_call(note, arguments='{"text": "one"}')

    async def run() -> None:
        async with SQLiteEngine(tmp_path / "tasks.db") as engine:
            await engine.enqueue([new])
            async with fleet.serve(queues=frozenset({"default"}), slots=30) as worker:
                assert tasks.client.worker is not None
                await note.enqueue("later")  # in this process, too, it goes to the fleet
                assert await worker.run(Lease(new.id, 1))
                assert not await worker.run(Lease(new.id, 1))
                [seen] = await until_async(lambda: engine.workers(ALIVE))
                assert (seen.slots, seen.queues) == (30, {"default"})
            [ran] = await engine.get([new.id])
            assert (ran.state, ran.worker) == (State.SUCCEEDED, seen.id)
            assert tasks.client.worker is None

    in_a_thread(run)
    assert said == ["one"]


@real
async def test_serving_for_a_fleet_in_the_main_thread_is_refused(url: str) -> None:
    fleet = Attached()
    Afterwards(FastAPI(), url, dispatch=fleet)
    with pytest.raises(RuntimeError, match="serve\\(\\) was called in the main thread"):
        async with fleet.serve():
            pass


@real
def test_a_fleet_cannot_serve_from_memory() -> None:
    fleet = Attached()
    Afterwards(FastAPI(), "memory://", dispatch=fleet)

    async def run() -> None:
        async with fleet.serve():
            pass

    with pytest.raises(InvalidOption, match="visible to one process only"):
        in_a_thread(run)


@real
def test_after_the_fleet_s_worker_has_ended_the_process_may_serve(url: str) -> None:
    app, fleet = FastAPI(), Attached()
    Afterwards(app, url, dispatch=fleet)

    async def run() -> None:
        async with fleet.serve():
            pass
        async with fleet.serve() as worker:
            assert not await worker.run(Lease("forged", int(datetime.now(UTC).timestamp())))

    in_a_thread(run)
