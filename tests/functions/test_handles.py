"""``TaskHandle``: the record of a task, its result, its cancellation."""

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from afterwards import (
    Afterwards,
    BackgroundTasks,
    Cancel,
    NotFinished,
    NotStored,
    State,
    TaskFailed,
    TaskHandle,
    UnknownTask,
    task,
)
from afterwards.core.task import NewTask
from face.diary import fail, note, take
from face.serving import serving, until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

NOBODY = "01890000-0000-7000-8000-000000000000"


class Invoice(BaseModel):
    number: int


@task
async def bill(number: int) -> Invoice:
    return Invoice(number=number)


@task
async def gives_up(reason: str) -> None:
    raise Cancel(reason)


@task
async def returns_nothing() -> None: ...


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    app.state.tasks = Afterwards(app, url)
    return app


async def test_a_result_comes_back_as_its_type(app: FastAPI) -> None:
    async with serving(app):
        assert await (await bill.enqueue(7)).result(timeout=5) == Invoice(number=7)
        assert await (await returns_nothing.enqueue()).result(timeout=5) is None


async def test_the_record_says_where_the_task_stands(app: FastAPI) -> None:
    async with serving(app):
        handle = await bill.enqueue(7)
        await handle.result(timeout=5)
        record = await handle.status()
    assert (record.id, record.name, record.state, record.attempt) == (handle.id, "bill", State.SUCCEEDED, 1)
    assert record.failures == ()
    assert record.finished_at is not None


async def test_a_failed_task_has_no_result_but_a_reason(app: FastAPI, said: list[str]) -> None:
    async with serving(app):
        handle = await fail.enqueue("no luck")
        with pytest.raises(TaskFailed, match=r"fail.* failed in attempt 1: ValueError: no luck"):
            await handle.result(timeout=5)
        [failure] = (await handle.status()).failures
    assert "raise ValueError(text)" in failure.traceback
    assert "afterwards" not in failure.traceback.replace("/afterwards/", "")  # it begins at the user's first line


async def test_a_cancelled_task_has_no_result_but_a_reason(app: FastAPI) -> None:
    async with serving(app):
        with pytest.raises(TaskFailed, match="was cancelled: no more"):
            await (await gives_up.enqueue("no more")).result(timeout=5)


async def test_a_result_that_takes_too_long_is_not_waited_for_and_the_task_goes_on(
    app: FastAPI, said: list[str]
) -> None:
    async with serving(app):
        handle = await take.enqueue(0.2, "long")
        with pytest.raises(NotFinished):
            await handle.result(timeout=0.05)
        assert await handle.result(timeout=5) == "long"


async def test_not_finished_is_a_timeout_error() -> None:
    assert issubclass(NotFinished, TimeoutError)


async def test_several_may_wait_for_one_result(app: FastAPI, said: list[str]) -> None:
    async with serving(app):
        handle = await take.enqueue(0.05, "long")
        assert await asyncio.gather(*(handle.result(timeout=5) for _ in range(5))) == ["long"] * 5


async def test_before_it_is_stored_nothing_can_be_asked(app: FastAPI, said: list[str]) -> None:
    handles: list[TaskHandle[str]] = []

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        handle = tasks.add_task(note, "hello")
        handles.append(handle)
        for ask in (handle.status, handle.result, handle.cancel):
            with pytest.raises(NotStored, match=r"await background_tasks\.flush\(\)"):
                await ask()

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        assert await handles[0].result(timeout=5) == "hello"


async def test_a_task_is_found_by_its_id(app: FastAPI) -> None:
    tasks: Afterwards = app.state.tasks
    async with serving(app):
        handle = await bill.enqueue(7)
        found = await tasks.get(handle.id)
        assert found.id == handle.id
        assert await found.result(timeout=5) == Invoice(number=7)


@pytest.mark.parametrize("id", [NOBODY, "", "nonsense", "x" * 1000, "'; DROP TABLE tasks; --", "\x00", "\ud800"])
async def test_an_id_that_nobody_has_is_unknown(app: FastAPI, id: str) -> None:
    async with serving(app):
        with pytest.raises(UnknownTask):
            await app.state.tasks.get(id)
    assert issubclass(UnknownTask, LookupError)


async def test_a_task_of_another_deploy_is_found_though_its_function_is_not(app: FastAPI) -> None:
    tasks: Afterwards = app.state.tasks
    async with serving(app):
        await tasks.client.enqueue([NewTask(id=NOBODY, name="removed", arguments="{}")])
        handle = await tasks.get(NOBODY)
        assert (await handle.status()).state is State.QUEUED
        await handle.cancel()
        with pytest.raises(TaskFailed):
            await handle.result(timeout=5)


async def test_a_queued_task_is_cancelled_at_once(app: FastAPI, said: list[str]) -> None:
    async with serving(app):
        handle = await note.options(delay=3600).enqueue("never")
        record = await handle.cancel("not needed")
    assert (record.state, record.reason) == (State.CANCELLED, "not needed")
    assert said == []


async def test_a_running_task_is_stopped(app: FastAPI, said: list[str]) -> None:
    async with serving(app):
        handle = await take.enqueue(60, "long")
        await until(lambda: said == ["long began"])
        await handle.cancel("enough")
        with pytest.raises(TaskFailed, match="was cancelled: enough"):
            await handle.result(timeout=5)
    assert said == ["long began"]


async def test_a_finished_task_stays_as_it_is(app: FastAPI) -> None:
    async with serving(app):
        handle = await bill.enqueue(7)
        await handle.result(timeout=5)
        assert (await handle.cancel()).state is State.SUCCEEDED


async def test_a_task_that_is_gone_is_unknown(app: FastAPI) -> None:
    async with serving(app):
        handle: TaskHandle[Any] = await bill.options(retention=0).enqueue(7)
        await handle.result(timeout=5)
        await (await app.state.tasks.client.open()).prune(10)
        with pytest.raises(UnknownTask):
            await handle.status()
