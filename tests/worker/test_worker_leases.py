"""Leases: they last as long as the process lives, whatever keeps its event loop busy."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from afterwards import Afterwards, State, TaskFunction, TaskHandle, task
from afterwards.client.client import current
from afterwards.core.settling import Settled
from afterwards.core.task import FailureKind
from afterwards.engine import Claim
from afterwards.tasks.registry import registry
from face.diary import note, take, take_in_thread
from face.diary import said as the_diary
from face.processes import uvicorn, write_application
from face.serving import as_stored, finished, records, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

LEASE = 0.3


@task
async def block_the_loop(seconds: float) -> str:
    the_diary.append("began")
    time.sleep(seconds)  # noqa: ASYNC251  # as careless users do
    return "ended"


@contextmanager
def another_worker(folder: Path) -> Iterator[None]:
    """Another process that takes tasks back as soon as their lease is over."""
    write_application(folder, f'Afterwards(app, "sqlite:///{folder / "tasks.db"}", lease={LEASE}, queues=["none"])')
    with uvicorn(folder) as server:
        assert server.url
        yield


async def test_they_survive_a_loop_that_is_blocked_for_longer(url: str, tmp_path: Path, said: list[str]) -> None:
    with another_worker(tmp_path):
        async with working(url, lease=LEASE):
            handle = await block_the_loop.enqueue(LEASE * 4)
            assert await handle.result(timeout=10) == "ended"
            record = await handle.status()
    assert (record.attempt, record.failures) == (1, ())
    assert said == ["began"]


@pytest.mark.parametrize("function", [take, take_in_thread])
async def test_they_survive_a_task_that_takes_longer(url: str, tmp_path: Path, said: list[str], function: Any) -> None:
    async with working(url, worker=False), working(url, lease=LEASE) as tasks:
        handle = await enqueue_into(tasks, function, LEASE * 4, "long")
        record = await finished(handle)
    assert (record.attempt, record.failures) == (1, ())


async def test_one_that_is_lost_stops_its_attempt_and_what_comes_out_of_it_is_dropped(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """As after a SIGSTOP, or on a machine that slept: by then others have decided on the task."""
    async with working(url, lease=LEASE) as tasks:
        handle = await take.enqueue(60, "long")
        await until(lambda: said == ["long began"])
        engine = await tasks.client.open()
        [task] = await engine.get([handle.id])
        lost = Settled(lease=task.lease, state=State.SCHEDULED, wait=timedelta(hours=1))
        assert await engine.finish([lost]) == []
        await until(lambda: [r for r in caplog.records if "lease lost: take" in r.message])
        assert await (await note.enqueue("next")).result(timeout=10) == "next"
        record = await handle.status()
    assert (record.state, record.attempt, record.failures) == (State.SCHEDULED, 1, ())
    assert said == ["long began", "next"]
    assert not [r for r in caplog.records if "late worker refused" in r.message]  # it was not even tried


async def test_the_task_of_a_worker_that_died_runs_again_and_nothing_is_charged_for_the_first_time(
    url: str, said: list[str]
) -> None:
    async with working(url, worker=False) as tasks:
        handle = await enqueue_into(tasks, note, "hello")
        engine = await tasks.client.open()
        names = registry.names
        await engine.claim(Claim(worker="dead", limit=1, lease=timedelta(seconds=0.01), names=names))
        async with working(url):
            await finished(handle)
            record = await as_stored(handle)
    assert (record.state, record.attempt, record.crashed) == (State.SUCCEEDED, 2, 0)
    assert [failure.kind for failure in record.failures] == [FailureKind.CRASHED]


async def enqueue_into(tasks: Afterwards, function: TaskFunction[..., Any, Any], *args: Any) -> TaskHandle[Any]:
    before = current.set(tasks.client)
    try:
        return await function.enqueue(*args)
    finally:
        current.reset(before)


async def test_what_runs_is_given_back_although_everything_was_cancelled(tmp_path: Path, said: list[str]) -> None:
    """As by a server that is forced to end, or a program whose event loop is closed under it."""
    url = f"sqlite:///{tmp_path / 'tasks.db'}"

    async def live() -> None:
        async with working(url):
            await take.enqueue(60, "long")
            await asyncio.sleep(60)

    async def main() -> None:
        living = asyncio.create_task(live())
        await until(lambda: said)
        for one in asyncio.all_tasks() - {asyncio.current_task()}:
            one.cancel()
        await asyncio.wait([living])

    await asyncio.to_thread(asyncio.run, main())
    async with working(url, worker=False) as tasks:
        [record] = await records(tasks)
    assert (record.state, [failure.kind for failure in record.failures]) == (State.QUEUED, [FailureKind.RELEASED])
