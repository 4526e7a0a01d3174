"""A result that is not there in time says why, and a worker says at its start what it could not run."""

import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from afterwards import Afterwards, NotFinished, Retry, TaskHandle, engines, task
from afterwards.client.ids import randomness
from afterwards.core.problems import ProblemKind
from afterwards.core.routing import LiveWorker
from afterwards.core.task import NewTask, task_id
from afterwards.engine import Query
from afterwards.engines.memory import MemoryEngine
from afterwards.tasks import compatibility
from face.diary import note, take
from face.serving import until, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task(retries=Retry(1, wait=600))
async def fails_once() -> str:
    raise ValueError("no luck")


@pytest.fixture
async def tasks(url: str) -> AsyncIterator[Afterwards]:
    """An installation whose tasks nobody runs."""
    async with working(url, worker=False) as tasks:
        yield tasks


async def why(handle: TaskHandle[str]) -> str:
    with pytest.raises(NotFinished) as late:
        await handle.result(timeout=0.02)
    return str(late.value)


async def test_a_queued_task_without_a_living_worker(tasks: Afterwards) -> None:
    handle = await note.enqueue("a")
    assert await why(handle) == (
        f"task {handle.id} (note) has not finished within 0:00:00.020000: it is queued, and no worker lives"
    )


async def test_a_queued_task_that_no_living_worker_takes(url: str, said: list[str]) -> None:
    async with working(url, queues={"mail"}) as tasks:
        await until_async(lambda: _registered(tasks))
        assert (await why(await note.enqueue("a"))).endswith(
            "it is queued, and no live worker that knows it serves queue default"
        )


async def test_a_queued_task_that_waits_for_a_slot(url: str, said: list[str]) -> None:
    async with working(url, concurrency=1) as tasks:
        running = await take.enqueue(60, "long")
        await until(lambda: said)
        await until_async(lambda: _registered(tasks))
        assert (await why(await note.enqueue("a"))).endswith("it is queued, and waits for a free slot of a worker")
        assert "it is running, since 20" in await why(running)
        assert "UTC in attempt 1" in await why(running)
        await running.cancel()


async def _registered(tasks: Afterwards) -> bool:
    return (await tasks.stats()).workers == 1


async def test_a_paused_task(tasks: Afterwards) -> None:
    handle = await note.options(queue="mail").enqueue("a")
    await tasks.pause(queue="mail")
    assert (await why(handle)).endswith("it is queued, and its queue mail is paused")
    await tasks.pause(note)
    assert (await why(handle)).endswith("it is queued, and note is paused")


async def test_a_task_behind_another_and_one_whose_time_has_not_come(tasks: Afterwards) -> None:
    first = await note.options(run_at=datetime(2099, 1, 31, 12, tzinfo=UTC)).enqueue("first")
    second = await note.options(after=first).enqueue("second")
    assert (await why(first)).endswith("it is scheduled until 2099-01-31 12:00:00 UTC")
    assert (await why(second)).endswith(f"it is waiting until task {first.id} has succeeded")


async def test_a_task_that_will_be_tried_again(url: str) -> None:
    async with working(url):
        handle = await fails_once.enqueue()
        await until_async(lambda: _retrying(handle))
        assert "it is scheduled for another attempt after a failure, until 20" in await why(handle)


async def _retrying(handle: TaskHandle[str]) -> bool:
    return (await handle.status()).retrying


def call(name: str, arguments: str = "{}", queue: str = "default") -> NewTask:
    id = task_id(datetime.now(UTC), randomness.take(10))
    return NewTask(id=id, name=name, arguments=arguments, queue=queue)


async def test_a_worker_says_at_its_start_what_it_could_not_run(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine = engines.shared(url)
    [unknown, *_] = await engine.enqueue([call("gone"), call("gone"), call("gone", queue="others"), call("note")])
    async with working(url, queues={"default"}):
        await until(lambda: told(caplog, "note, arguments"))
    assert len(told(caplog, "cannot run with this code")) == 2
    [line] = told(caplog, "gone, name: no task function has this name or alias (2 tasks, as ")
    assert line.levelno == logging.WARNING
    assert unknown.name == "gone"


async def test_what_another_living_worker_knows_is_not_told(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    engine = engines.shared(url)
    await engine.enqueue([call("of_another_application"), call("note")])
    names = frozenset({"of_another_application"})
    await engine.announce([LiveWorker(id="w", host="h", pid="1", started_at=datetime.now(UTC), names=names)])
    async with working(url):
        await until(lambda: told(caplog, "note, arguments"))
    assert not told(caplog, "of_another_application")


async def test_the_check_at_start_looks_at_a_bounded_number_of_tasks(
    url: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compatibility, "MOST_CHECKED", 2 * compatibility.PAGE)
    monkeypatch.setattr(compatibility, "PAUSE", 0)
    limits: list[int] = []

    class Counting(MemoryEngine):
        async def find(self, query: Query) -> list:  # type: ignore[type-arg]
            limits.append(query.limit)
            return await super().find(query)

    engine = Counting()
    await engine.enqueue([call("gone") for _ in range(3 * compatibility.PAGE)])
    async with working(url, worker=False) as tasks:
        monkeypatch.setattr(tasks.client, "open", lambda: _opened(engine))
        await compatibility.check_at_start(tasks.client)
    assert limits == [compatibility.PAGE] * 2


async def test_records_without_a_readable_id_are_each_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compatibility, "UNFINISHED", replace(compatibility.UNFINISHED, limit=3))
    async with working(f"sqlite:///{tmp_path}/tasks.db", worker=False) as tasks:
        engine = await tasks.client.open()
        await engine.enqueue([call("gone") for _ in range(9)])
        with closing(sqlite3.connect(tmp_path / "tasks.db")) as connection, connection:
            connection.execute("UPDATE afterwards_tasks SET id = 'x' || seq WHERE seq IN (1, 4, 5, 9)")
        found = {problem.what: problem.count for problem in await tasks.check()}
    assert found == {ProblemKind.NAME: 5, ProblemKind.RECORD: 4}


async def _opened(engine: MemoryEngine) -> MemoryEngine:
    return engine


def told(caplog: pytest.LogCaptureFixture, text: str) -> list[logging.LogRecord]:
    return [one for one in caplog.records if text in one.getMessage()]
