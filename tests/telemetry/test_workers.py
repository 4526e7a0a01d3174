"""What a worker tells of its process: the lag of its event loop, its version, the plain functions that run."""

import asyncio
import time
from datetime import timedelta
from importlib.metadata import version

import pytest
from fastapi import BackgroundTasks, FastAPI

from afterwards import Afterwards
from afterwards.core.routing import ALIVE, LiveWorker
from afterwards.execution.lateness import SPAN, Lateness
from afterwards.execution.plain_runs import MOST_SHOWN
from afterwards.worker import registration
from face.serving import serving, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "REGISTER_EVERY", timedelta(milliseconds=20))


async def the_worker(tasks: Afterwards) -> LiveWorker | None:
    found = await (await tasks.client.open()).workers(ALIVE)
    return found[0] if found else None


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    app.state.tasks = Afterwards(app, url)
    app.state.go = asyncio.Event()

    async def wait() -> None:
        await app.state.go.wait()

    @app.get("/wait/{times}")
    async def add(times: int, background_tasks: BackgroundTasks) -> None:
        for _ in range(times):
            background_tasks.add_task(wait)

    @app.get("/block")
    async def block() -> None:
        time.sleep(0.6)  # noqa: ASYNC251  # as careless users do

    return app


async def test_a_plain_function_is_announced_while_it_runs(app: FastAPI) -> None:
    async with serving(app) as http:

        async def running() -> LiveWorker | None:
            worker = await the_worker(app.state.tasks)
            return worker if worker and worker.running else None

        await http.get("/wait/1")
        worker = await until_async(running)
        [run] = worker.running
        assert (run.name, run.origin) == ("wait", "GET /wait/1")
        assert abs((app.state.tasks.client.now() - run.started_at).total_seconds()) < 60
        assert worker.version == version("afterwards")
        app.state.go.set()

        async def none_is_left() -> bool:
            worker = await the_worker(app.state.tasks)
            return worker is not None and worker.running == ()

        await until_async(none_is_left)


async def test_of_very_many_only_the_first_are_announced(app: FastAPI) -> None:
    client = app.state.tasks.client
    async with serving(app) as http:
        for _ in range(MOST_SHOWN + 5):
            await http.get("/wait/1")

        async def all_run() -> bool:
            return len(client.plain_runs.shown()) == MOST_SHOWN

        await until_async(all_run)
        app.state.go.set()


async def test_a_blocked_event_loop_is_announced_as_lag(app: FastAPI) -> None:
    async with serving(app) as http:
        await http.get("/block")

        async def late() -> bool:
            worker = await the_worker(app.state.tasks)
            return worker is not None and worker.lag is not None and worker.lag > timedelta(seconds=0.3)

        await until_async(late)


async def test_an_application_without_a_worker_announces_nothing(url: str) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url, worker=False)
    async with app.router.lifespan_context(app):
        assert await the_worker(tasks) is None


def test_the_longest_lateness_is_kept_for_a_while_and_then_forgotten() -> None:
    at = [0.0]
    lateness = Lateness(lambda: at[0])
    assert lateness.longest() is None
    lateness.note(2)
    lateness.note(1)
    assert lateness.longest() == timedelta(seconds=2)
    at[0] = SPAN
    lateness.note(0.5)
    assert lateness.longest() == timedelta(seconds=2), "it is in the half before"
    at[0] = 2 * SPAN
    assert lateness.longest() == timedelta(seconds=0.5)
    at[0] = 5 * SPAN
    assert lateness.longest() == timedelta()
