"""Reports on workers that stood still: slots, threads, locked files, and what does not stop."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, State, TaskHandle, task
from afterwards.core.task import FailureKind
from face.diary import note, note_in_thread
from face.diary import said as the_diary
from face.serving import finished, records, serving, until, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

go = threading.Event()


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    go.clear()
    yield
    go.set()


@task
async def count_beans(number: int) -> int:
    return number


@task
async def count_all_beans(numbers: list[int]) -> int:
    handles = [await count_beans.enqueue(number) for number in numbers]
    return sum([await handle.result() for handle in handles])


@task
async def count_twice(numbers: list[int]) -> int:
    return await (await count_all_beans.enqueue(numbers)).result() * 2


async def test_tasks_that_wait_for_others_leave_them_their_slots(url: str) -> None:
    """All workers waited for the results of tasks that were behind them, and stood still.

    https://github.com/coleifer/huey/issues/618
    """
    async with working(url, concurrency=2):
        handles = [await count_twice.enqueue([number] * 3) for number in range(6)]
        assert [await handle.result(timeout=20) for handle in handles] == [number * 6 for number in range(6)]


@task
def wait_in_the_thread_of_a_task() -> None:
    the_diary.append("began")
    assert go.wait(10)


def wait_as_a_plain_one() -> None:
    the_diary.append("began")
    assert go.wait(10)


@pytest.mark.parametrize("function", [wait_in_the_thread_of_a_task, wait_as_a_plain_one], ids=["stored", "plain"])
async def test_any_number_of_blocking_tasks_leaves_the_endpoints_their_threads(
    url: str, said: list[str], function: Any
) -> None:
    """Blocking tasks held other requests up, behind a middleware of the usual kind.

    https://github.com/fastapi/fastapi/issues/4616
    """
    app = FastAPI()
    Afterwards(app, url)

    @app.middleware("http")
    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    @app.get("/add")
    def add(tasks: BackgroundTasks) -> None:
        tasks.add_task(function)

    @app.get("/ask")
    def ask() -> str:
        return "answered"

    async with serving(app) as http:
        await asyncio.gather(*(http.get("/add") for _ in range(60)))
        await until(lambda: len(said) >= 10)
        answers = await asyncio.gather(*(http.get("/ask") for _ in range(60)))
        assert [answer.json() for answer in answers] == ["answered"] * 60
        assert len(said) < 60, "some wait for a thread of their own"
        go.set()
        await until(lambda: len(said) == 60)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the only lock to write, as an application does that keeps a transaction open."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_a_locked_file_ends_no_worker_and_loses_nothing(url: str, said: list[str], tmp_path: Path) -> None:
    """The database was locked for a moment: workers got errors from it, and with them tasks were lost.

    https://github.com/coleifer/huey/issues/445
    """
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.get("/{text}")
    async def handler(text: str, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, text)
        background_tasks.add_task(note_in_thread, text)

    async with serving(app) as http:
        assert (await http.get("/before")).status_code == 200
        await until(lambda: said == ["before"] * 2)
        with locked(tmp_path / "tasks.db"):
            waiting = [asyncio.create_task(http.get(f"/{number}")) for number in range(10)]
            done, _ = await asyncio.wait(waiting, timeout=0.5)
            assert [request for request in done if request.result().status_code == 200] == []
        answers = await asyncio.gather(*waiting)
        accepted = [str(number) for number, answer in enumerate(answers) if answer.status_code == 200]
        assert accepted
        await until(lambda: sorted(said[2:]) == sorted(accepted * 2))
        await until_async(lambda: succeeded(tasks, 2 + 2 * len(accepted)))


async def succeeded(tasks: Afterwards, number: int) -> bool:
    return [one.state for one in await records(tasks)] == [State.SUCCEEDED] * number


async def test_a_task_that_is_due_later_than_a_lease_lasts_runs_once(url: str, said: list[str]) -> None:
    """Tasks with a delay longer than the broker's timeout were handed out again and again, and ran many times.

    https://github.com/celery/celery/issues/2599
    """
    async with working(url, lease=0.3) as tasks:
        handles = await asyncio.gather(*(note.options(delay=1).enqueue(str(number)) for number in range(20)))
        assert said == []
        ended = [await finished(handle) for handle in handles]
        assert {(one.state, one.attempt) for one in ended} == {(State.SUCCEEDED, 1)}
        assert len(await records(tasks)) == 20
    assert len(said) == 20


@task
async def never_ends() -> None:
    the_diary.append("began")
    while not go.is_set():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)
    the_diary.append("ended")


async def test_a_worker_ends_although_a_task_ignores_that_it_is_cancelled(url: str, said: list[str]) -> None:
    """A worker did not end, for it waited for a task that ignored its cancellation.

    https://github.com/procrastinate-org/procrastinate/pull/1616
    """
    async with asyncio.timeout(10):
        async with working(url, grace=0.1) as tasks:
            handle: TaskHandle[None] = await never_ends.enqueue()
            await until(lambda: said == ["began"])
    go.set()
    await until(lambda: said == ["began", "ended"])
    async with working(url) as tasks:
        assert await (await note.enqueue("next")).result(timeout=10) == "next"
        record = await finished(await tasks.get(handle.id))
    assert record.state is State.SUCCEEDED


@task(timeout=0.05)
async def ignores_its_timeout() -> None:
    await never_ends.function()


async def test_a_task_that_ignores_its_timeout_does_not_keep_its_slot(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """What marks a job as running was never taken back after a timeout, and it never ran again until a restart.

    https://github.com/openclaw/openclaw/issues/142638
    """
    async with working(url, concurrency=2):
        for handle in [await ignores_its_timeout.enqueue() for _ in range(2)]:
            record = await finished(handle)
            assert (record.state, record.failures[-1].kind) == (State.FAILED, FailureKind.TIMED_OUT)
        assert await (await note.enqueue("next")).result(timeout=10) == "next"
        go.set()
        await until(lambda: said.count("ended") == 2)
    assert "ignores_its_timeout" in caplog.text
