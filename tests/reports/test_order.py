"""Reports on tasks that depend on others, and on tasks that shall be there once."""

import asyncio

import pytest
from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, Retry, State, TaskHandle, task
from afterwards.engine import Query
from face.diary import fail, note
from face.diary import said as the_diary
from face.serving import finished, records, serving, until, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

gate: list[str] = []


@pytest.fixture(autouse=True)
def closed() -> None:
    gate.clear()


@task(retries=Retry(2, wait=0))
async def stumble_twice(text: str) -> str:
    the_diary.append(text)
    if the_diary.count(text) < 3:
        raise ConnectionError(text)
    return text


@task
async def wait_for(text: str) -> str:
    await until(lambda: text in gate)
    the_diary.append(text)
    return text


async def test_what_depends_on_a_failed_task_is_cancelled_and_says_why(url: str, said: list[str]) -> None:
    """A job whose dependency had failed stayed deferred for ever, and nothing told of it.

    https://github.com/rq/rq/issues/1093
    """
    async with working(url):
        first = await fail.options(delay=0.1).enqueue("first")
        second = await note.options(after=first).enqueue("second")
        third = await note.options(after=second).enqueue("third")
        ended = [await finished(handle) for handle in (first, second, third)]
    assert [one.state for one in ended] == [State.FAILED, State.CANCELLED, State.CANCELLED]
    assert all(one.reason for one in ended[1:])
    assert said == ["first"]


async def test_what_depends_on_a_cancelled_task_does_not_run(url: str, said: list[str]) -> None:
    """Jobs ran although the job that they depended on had been cancelled.

    https://github.com/rq/rq/issues/1691
    """
    async with working(url):
        first = await note.options(delay=3600).enqueue("first")
        second = await note.options(after=first).enqueue("second")
        await first.cancel("no longer wanted")
        late = await note.options(after=first).enqueue("late")
        assert [(await finished(one)).state for one in (first, second, late)] == [State.CANCELLED] * 3
        assert await (await note.enqueue("another")).result(timeout=10) == "another"
    assert said == ["another"]


async def test_what_depends_on_a_task_begins_after_its_last_retry(url: str, said: list[str]) -> None:
    """A dependent job began when the first one was about to be retried.

    https://github.com/rq/rq/issues/813
    """
    async with working(url):
        first = await stumble_twice.options(delay=0.1).enqueue("first")
        second = await note.options(after=first).enqueue("second")
        await finished(second)
    assert said == ["first", "first", "first", "second"]


async def test_a_dependency_whose_record_is_not_kept_is_known_to_have_succeeded(url: str, said: list[str]) -> None:
    """A job never ran, for the one before it left no record when it had succeeded.

    https://github.com/rq/rq/issues/675
    """
    async with working(url) as tasks:
        first = await wait_for.options(retention=0).enqueue("first")
        second = await note.options(after=first).enqueue("second")
        gate.append("first")
        assert await second.result(timeout=10) == "second"
        engine = await tasks.client.open()
        await engine.prune(limit=100)
        assert await engine.get([first.id]) == []
        late = await finished(await note.options(after=first).enqueue("late"))
    assert (late.state, bool(late.reason)) == (State.CANCELLED, True)
    assert said == ["first", "second"]


async def test_a_dependency_that_ends_while_the_next_is_stored_is_not_missed(url: str, said: list[str]) -> None:
    """All dependencies ended while a job was being stored, and it was never queued.

    https://github.com/rq/rq/pull/1615
    """
    async with working(url):
        for _ in range(5):
            firsts = await asyncio.gather(*(note.enqueue("first") for _ in range(20)))
            seconds = await asyncio.gather(*(note.options(after=first).enqueue("second") for first in firsts))
            await asyncio.gather(*(second.result(timeout=20) for second in seconds))
    assert said.count("second") == 100


@pytest.mark.parametrize("ordered", [True, False])
async def test_one_that_fails_takes_those_behind_it_only_where_that_is_asked_for(
    url: str, said: list[str], ordered: bool
) -> None:
    """The tasks behind one that raised were never run, and there was no way to have them run.

    https://github.com/Kludex/starlette/issues/1589
    """
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.configure(ordered=ordered)
        background_tasks.add_task(fail, "first")
        background_tasks.add_task(note, "second")

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until_async(lambda: all_finished(tasks))
        first, second = await records(tasks)
    assert first.state is State.FAILED
    assert second.state is (State.CANCELLED if ordered else State.SUCCEEDED)
    assert sorted(said) == (["first"] if ordered else ["first", "second"])


async def all_finished(tasks: Afterwards) -> bool:
    return all(one.state.finished for one in await (await tasks.client.open()).find(Query()))


@task(unique=True)
async def report(day: str) -> str:
    the_diary.append(day)
    if day == "broken":
        raise ValueError(day)
    return day


@task(unique=True, retries=Retry(1, wait=3600, max_wait=3600, jitter=False))
async def retried_later(day: str) -> None:
    the_diary.append(day)
    raise ConnectionError(day)


async def test_a_unique_task_can_be_added_again_when_it_has_ended(url: str, said: list[str]) -> None:
    """A job's id was refused as long as the result of the one before was kept.

    https://github.com/python-arq/arq/issues/221
    """
    async with working(url):
        for _ in range(3):
            assert await (await report.enqueue("monday")).result(timeout=10) == "monday"
    assert said == ["monday"] * 3


async def test_a_unique_task_that_failed_blocks_no_later_one(url: str, said: list[str]) -> None:
    """A job that failed kept its lock, and none like it was accepted any more.

    https://github.com/veeqo/activejob-uniqueness/issues/17
    """
    async with working(url):
        for _ in range(2):
            assert (await finished(await report.enqueue("broken"))).state is State.FAILED
    assert said == ["broken", "broken"]


async def test_a_unique_task_that_waits_for_its_retry_is_still_the_one(url: str, said: list[str]) -> None:
    """While a failed job waited for its retry, the same one was accepted again.

    https://github.com/zoolutions/sidekiq-unique-jobs/issues/394
    """

    async def waits(handle: TaskHandle[None]) -> bool:
        task = await handle.status()
        return task.state is State.SCHEDULED and len(task.failures) == 1

    async with working(url) as tasks:
        first = await retried_later.enqueue("monday")
        await until_async(lambda: waits(first))
        again = await asyncio.gather(*(retried_later.enqueue("monday") for _ in range(5)))
        assert {one.id for one in again} == {first.id}
        assert len(await records(tasks)) == 1
    assert said == ["monday"]
