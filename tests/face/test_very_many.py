"""One request that adds very many tasks: all or none, in order, and others are answered meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from afterwards import Afterwards, BackgroundTasks, State, task
from afterwards.web import durable_calls
from face.serving import records, serving, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

MANY = 300


@task
async def count(number: int) -> None:
    counted.append(number)


@task
async def count_or_fail(number: int) -> None:
    raise ValueError(number)


counted: list[int] = []


def an_application(url: str, **options: Any) -> tuple[FastAPI, Afterwards]:
    app = FastAPI()
    tasks = Afterwards(app, url, **options)

    @app.post("/{many}")
    async def add(many: int, background_tasks: BackgroundTasks) -> None:
        for number in range(many):
            background_tasks.add_task(count, number)

    @app.post("/{many}/behind-a-failure")
    async def add_behind(many: int, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(count_or_fail, 0)
        for number in range(many):
            background_tasks.add_task(count, number)

    return app, tasks


async def all_in(tasks: Afterwards, expected: dict[State, int]) -> None:
    engine = await tasks.client.open()

    async def look() -> bool:
        found = (await engine.stats()).counts
        return {state: number for (_, state), number in found.items()} == expected

    await until_async(look)


@pytest.mark.parametrize("ordered", [True, False])
async def test_all_of_them_run(url: str, ordered: bool) -> None:
    counted.clear()
    app, tasks = an_application(url, ordered=ordered)
    async with serving(app) as http:
        assert (await http.post(f"/{MANY}")).status_code == 200
        await all_in(tasks, {State.SUCCEEDED: MANY})
    assert sorted(counted) == list(range(MANY))
    if ordered:
        assert counted == sorted(counted)


async def test_behind_a_failure_all_of_them_are_cancelled(url: str) -> None:
    counted.clear()
    app, tasks = an_application(url)
    async with serving(app) as http:
        assert (await http.post(f"/{MANY}/behind-a-failure")).status_code == 200
        await all_in(tasks, {State.FAILED: 1, State.CANCELLED: MANY})
    assert counted == []


async def test_those_added_after_the_response_began_are_stored_together(url: str) -> None:
    counted.clear()
    app = FastAPI()
    tasks = Afterwards(app, url)
    started: list[int] = []

    @app.post("/")
    async def late(background_tasks: BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "first"
            before = len(asyncio.all_tasks())
            for number in range(MANY):
                background_tasks.add_task(count, number)
            started.append(len(asyncio.all_tasks()) - before)
            for number in range(MANY, MANY + 20):  # while those are stored, and after that
                await asyncio.sleep(0)
                background_tasks.add_task(count, number)
            yield "last"

        return StreamingResponse(body())

    async with serving(app) as http:
        assert (await http.post("/")).text == "firstlast"
        await all_in(tasks, {State.SUCCEEDED: MANY + 20})
    assert counted == list(range(MANY + 20))
    assert started == [1]


async def test_those_that_threads_add_after_the_response_began_are_all_stored(url: str) -> None:
    counted.clear()
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.post("/")
    async def late(background_tasks: BackgroundTasks) -> StreamingResponse:
        def add(numbers: range) -> None:
            for number in numbers:
                background_tasks.add_task(count, number)

        async def body() -> AsyncIterator[str]:
            yield "first"
            threads = [asyncio.to_thread(add, range(start, 60, 3)) for start in (1, 2)]
            adding = asyncio.gather(*threads)
            for number in range(0, 60, 3):
                background_tasks.add_task(count, number)
                await asyncio.sleep(0)
            await adding
            yield "last"

        return StreamingResponse(body())

    async with serving(app) as http:
        assert (await http.post("/")).text == "firstlast"
        await all_in(tasks, {State.SUCCEEDED: 60})
    assert sorted(counted) == list(range(60))


async def test_the_event_loop_goes_on_while_they_are_made_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_calls, "AT_ONCE", 10)
    making = asyncio.create_task(durable_calls._in_turns(range(100), 100))
    turns = 0
    while not making.done():
        await asyncio.sleep(0)
        turns += 1
    assert await making == list(range(100))
    assert turns >= 10


async def test_what_is_made_ready_in_several_turns_is_one_chain(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_calls, "AT_ONCE", 10)
    app, tasks = an_application(url, worker=False)
    async with serving(app) as http:
        assert (await http.post("/35")).status_code == 200
        stored = await records(tasks)
    assert [one.after for one in stored] == [None, *(before.id for before in stored[:-1])]
    assert [one.state for one in stored[1:]] == [State.WAITING] * 34
