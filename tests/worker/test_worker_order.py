"""The tasks of one request run in the order added; when one fails for good, those behind it do not."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, Retry, Snooze, State, task
from afterwards.core.task import Task
from face.diary import fail, note, note_in_thread, take
from face.diary import said as the_diary
from face.serving import records, serving, until, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task(retries=Retry(2, wait=0.01, jitter=False))
async def fail_at_first(text: str) -> None:
    the_diary.append(text)
    if the_diary.count(text) < 3:
        raise OSError


@task
async def snooze_at_first(text: str) -> None:
    the_diary.append(text)
    if the_diary.count(text) < 3:
        raise Snooze(0.01)


async def asked(url: str, add: Callable[[BackgroundTasks], Any], **options: Any) -> list[Task]:
    """What became of the tasks of a request that adds them so."""
    app = FastAPI()
    tasks = Afterwards(app, url, **options)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        add(background_tasks)

    async def all_finished() -> list[Task] | None:
        found = await records(tasks)
        return found if all(task.state.finished for task in found) else None

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        found: list[Task] = await until_async(all_finished)
        return found


async def test_they_run_in_the_order_added(url: str, said: list[str]) -> None:
    def add(tasks: BackgroundTasks) -> None:
        tasks.add_task(take, 0.05, "1")
        tasks.add_task(note_in_thread, "2")
        tasks.add_task(take, 0.01, "3")
        tasks.add_task(note, "4")

    await asked(url, add)
    assert said == ["1 began", "1 ended", "2", "3 began", "3 ended", "4"]


async def test_those_behind_one_that_fails_are_cancelled_with_the_reason(url: str, said: list[str]) -> None:
    def add(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "1")
        tasks.add_task(fail, "2")
        tasks.add_task(note, "3")
        tasks.add_task(note, "4")

    one, two, three, four = await asked(url, add)
    assert said == ["1", "2"]
    assert (one.state, two.state) == (State.SUCCEEDED, State.FAILED)
    assert (three.state, four.state) == (State.CANCELLED, State.CANCELLED)
    assert three.reason is not None
    assert f"fail ({two.id})" in three.reason


@pytest.mark.parametrize("function", [fail_at_first, snooze_at_first])
async def test_a_retry_and_a_snooze_hold_those_behind(url: str, said: list[str], function: Any) -> None:
    def add(tasks: BackgroundTasks) -> None:
        tasks.add_task(function, "1")
        tasks.add_task(note, "2")

    await asked(url, add)
    assert said == ["1", "1", "1", "2"]


async def test_a_delayed_call_leaves_the_chain(url: str, said: list[str]) -> None:
    def add(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "1")
        tasks.add_task(note.options(delay=2), "delayed")
        tasks.add_task(note, "2")

    await asked(url, add)
    assert said == ["1", "2", "delayed"]


@pytest.mark.parametrize("how", ["the installation", "the request"])
async def test_order_can_be_given_up(url: str, said: list[str], how: str) -> None:
    def add(tasks: BackgroundTasks) -> None:
        if how == "the request":
            tasks.configure(ordered=False)
        tasks.add_task(take, 0.2, "slow")
        tasks.add_task(fail, "fails")
        tasks.add_task(note, "quick")

    found = await asked(url, add, ordered=how == "the request")
    assert said[0] == "slow began"
    assert said[-1] == "slow ended"
    assert [task.state for task in found] == [State.SUCCEEDED, State.FAILED, State.SUCCEEDED]


async def test_a_request_may_ask_for_order_where_the_installation_has_none(url: str, said: list[str]) -> None:
    def add(tasks: BackgroundTasks) -> None:
        tasks.configure(ordered=True)
        tasks.add_task(take, 0.05, "slow")
        tasks.add_task(note, "quick")

    await asked(url, add, ordered=False)
    assert said == ["slow began", "slow ended", "quick"]


async def test_a_requeue_brings_those_behind_back(url: str, said: list[str]) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(fail_unless_repaired, "1")
        background_tasks.add_task(note, "2")

    async with serving(app) as http:
        await http.get("/")

        async def cancelled() -> bool:
            return [task.state for task in await records(tasks)] == [State.FAILED, State.CANCELLED]

        await until_async(cancelled)
        said.append("repaired")
        engine = await tasks.client.open()
        await engine.requeue([(await records(tasks))[0].id])
        await until(lambda: "2" in said)
    assert said == ["1", "repaired", "1", "2"]


@task
async def fail_unless_repaired(text: str) -> None:
    the_diary.append(text)
    if "repaired" not in the_diary:
        raise OSError
