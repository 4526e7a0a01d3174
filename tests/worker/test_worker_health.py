"""What ends a part of the worker is told, and it starts again; a worker that cannot go on is no reason for a 2xx."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, engines, task
from afterwards.core.errors import WorkerUnfit
from afterwards.core.settling import Settled
from afterwards.core.task import Lease, Task
from afterwards.engine import Claim, Heartbeat, Held
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.execution.health import TOO_OFTEN, Health
from face.diary import note
from face.serving import finished, serving, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task
async def cancel_everything() -> None:
    """As code does that wants to end all that it has begun."""
    for one in asyncio.all_tasks():
        if one.get_coro().__qualname__.startswith("keep_"):  # type: ignore[union-attr]  # of this worker
            one.cancel()


async def test_parts_that_are_cancelled_from_outside_start_again(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with working(url, concurrency=1) as tasks:
        await finished(await cancel_everything.enqueue())
        for _ in range(3):
            assert await (await note.enqueue("next")).result(timeout=10) == "next"
        assert tasks.healthy
    told = [line.getMessage() for line in caplog.records if line.levelno == logging.CRITICAL]
    assert any("claim tasks was cancelled from outside" in line for line in told)


class Failing(SQLiteEngine):
    """A store whose code has mistakes, as long as it is said to have."""

    mistakes: frozenset[str] = frozenset()

    async def claim(self, claim: Claim) -> list[Task]:
        self._may_fail("claim")
        return await super().claim(claim)

    async def heartbeat(self, beats: Sequence[Heartbeat], *, lease: Any) -> list[Held]:
        self._may_fail("heartbeat")
        return await super().heartbeat(beats, lease=lease)

    async def finish(self, settled: Sequence[Settled]) -> list[Lease]:
        self._may_fail("finish")
        return await super().finish(settled)

    def _may_fail(self, method: str) -> None:
        if method in self.mistakes:
            raise TypeError(f"a mistake in {method}")


@task
async def wait_for_the_cancel() -> None:
    await asyncio.sleep(60)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afterwards.engines.sqlite.SQLiteEngine", Failing)
    Failing.mistakes = frozenset()


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize("method", ["claim", "heartbeat", "finish"])
async def test_while_the_worker_cannot_go_on_requests_that_add_tasks_are_refused(url: str, method: str) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url, lease=1, grace=0)

    @app.post("/add")
    async def add(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "said")

    @app.post("/enqueue")
    async def enqueue() -> None:
        await note.enqueue("said")

    @app.post("/wait")
    async def wait(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(wait_for_the_cancel)

    @app.get("/")
    async def nothing() -> str:
        return "well"

    async with serving(app) as http:
        assert isinstance(engines.shared(url), Failing)
        assert (await http.post("/wait")).status_code == 200
        Failing.mistakes = frozenset({method})
        for _ in range(5):
            await http.post("/add")
        await until(lambda: not tasks.healthy)
        for path in ("/add", "/enqueue"):
            refused = await http.post(path)
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert (await http.get("/")).status_code == 200
        Failing.mistakes = frozenset()
        if method == "finish":  # nothing is left that could show it: whatever ends next does
            await (await note.enqueue("by itself")).result(timeout=10)
        await until(lambda: tasks.healthy)
        assert (await http.post("/add")).status_code == 200


async def test_a_lifespan_that_was_ended_from_outside_is_no_worker(url: str) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)

    async def live() -> None:
        async with app.router.lifespan_context(app):
            began.set()
            await asyncio.sleep(60)

    began = asyncio.Event()
    living = asyncio.create_task(live())
    await began.wait()
    assert tasks.healthy
    living.cancel()
    await asyncio.wait([living])
    assert not tasks.healthy
    with pytest.raises(WorkerUnfit):
        tasks.client.must_work()
    async with app.router.lifespan_context(app):
        assert tasks.healthy, "another start is another worker"


def test_only_what_fails_again_and_again_is_broken(caplog: pytest.LogCaptureFixture) -> None:
    health = Health()
    for _ in range(TOO_OFTEN - 1):
        health.failed("work", ValueError())
    health.well("work")
    health.failed("work", ValueError())
    assert health.trouble is None
    for _ in range(TOO_OFTEN - 1):
        health.failed("work", ValueError())
    assert health.trouble == "it cannot work"
    health.well("something else")
    assert health.trouble is not None
    health.well("work")
    assert health.trouble is None
