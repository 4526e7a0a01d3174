"""How many tasks run at once, whatever number of requests ask for them at the same time."""

import asyncio
from collections.abc import AsyncIterator
from itertools import accumulate
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from afterwards import Afterwards, BackgroundTasks, State, task
from afterwards.worker import slots
from face.diary import take
from face.serving import finished, records, serving, until, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


class Application:
    """Its requests end when they are told to, all at the same time."""

    def __init__(self, url: str, concurrency: int) -> None:
        self.app = FastAPI()
        self.tasks = Afterwards(self.app, url, concurrency=concurrency)
        self.ids: list[str] = []
        self.end = asyncio.Event()
        self.app.get("/{seconds}")(self.handler)

    async def handler(self, seconds: float, background_tasks: BackgroundTasks) -> StreamingResponse:
        self.ids.append(background_tasks.add_task(take, seconds).id)

        async def body() -> AsyncIterator[str]:
            yield "begun"
            await self.end.wait()

        return StreamingResponse(body())


async def stored(application: Application) -> bool:
    return len(await records(application.tasks)) == 2


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_requests_that_end_together_start_no_more_tasks_than_there_are_slots(
    url: str, said: list[str], concurrency: int
) -> None:
    application = Application(url, concurrency)
    async with serving(application.app) as http:
        asked = [asyncio.create_task(http.get("/0.02")) for _ in range(10)]
        await until(lambda: len(application.ids) == 10)
        application.end.set()
        await asyncio.gather(*asked)
        await until(lambda: len(said) == 20)
    at_once = accumulate(1 if "began" in line else -1 for line in said)
    assert max(at_once) == concurrency


async def test_one_that_waits_long_for_a_slot_goes_back_to_the_queue(url: str, said: list[str]) -> None:
    """Another worker may be free. It has not been tried, so no failure tells of that."""
    application = Application(url, concurrency=1)
    async with serving(application.app) as http:
        asked = [asyncio.create_task(http.get("/3")), asyncio.create_task(http.get("/3"))]
        await until_async(lambda: stored(application))
        handles = [await application.tasks.get(id) for id in application.ids]

        async def states() -> list[State]:
            return [(await handle.status()).state for handle in handles]

        async def both_are_leased() -> bool:
            return await states() == [State.RUNNING, State.RUNNING]

        async def one_is_queued() -> bool:
            return sorted(await states()) == [State.QUEUED, State.RUNNING]

        await until_async(both_are_leased)
        application.end.set()
        await asyncio.gather(*asked)
        await until_async(one_is_queued)
        assert len(said) == 1
        ended = [await finished(handle) for handle in handles]
    assert [(record.state, record.failures) for record in ended] == [(State.SUCCEEDED, ())] * 2


async def test_a_busy_worker_leases_nothing_for_its_requests(url: str, said: list[str]) -> None:
    """Another worker may be free when they end."""
    application = Application(url, concurrency=1)
    async with serving(application.app) as http:
        handle = await take.enqueue(2)
        await until(lambda: said)
        asked = asyncio.create_task(http.get("/0"))
        await until_async(lambda: stored(application))
        held = await (await application.tasks.get(application.ids[0])).status()
        application.end.set()
        await asked
        await finished(handle)
    assert (held.state, held.attempt) == (State.SCHEDULED, 0)


CLIENTS = 30
"""How many ask at the same time: more than a worker of two slots leases for."""


@task
async def count() -> None:
    """One of very many."""


def asking_for(function: Any, url: str, concurrency: int) -> tuple[FastAPI, Afterwards]:
    """An application each of whose requests adds one call."""
    app = FastAPI()

    @app.get("/")
    async def ask(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(function)

    return app, Afterwards(app, url, concurrency=concurrency)


@pytest.mark.timeout(200)
async def test_a_storm_is_not_queued_for_as_long_as_it_lasts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more requests at once than a worker leases for, some tasks are queued; what comes later need not wait.

    How soon that happens is for ``benchmarks``. Here what has ended counts for ever, so that a slow machine, on which
    hardly a task ends within a moment, comes to the same.
    """
    monkeypatch.setattr(slots, "PACE_WINDOW", 3600)
    app, tasks = asking_for(count, url, concurrency=2)
    over = asyncio.Event()
    async with serving(app) as http:

        async def client() -> None:
            while not over.is_set():
                await http.get("/")

        storm = [asyncio.create_task(client()) for _ in range(CLIENTS)]
        async with asyncio.timeout(150):
            while not await most_of_the_latest_were_leased_as_they_were_stored(tasks):  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # the storm goes on
            over.set()
            await asyncio.gather(*storm)


async def most_of_the_latest_were_leased_as_they_were_stored(tasks: Afterwards) -> bool:
    latest = (await records(tasks))[-CLIENTS:]
    return sum(record.started_at == record.created_at for record in latest) > CLIENTS / 2


@task(max_concurrency=1000)
async def count_limited() -> None:
    """What is leased counts, whether it has begun or not."""


@task(rerun_after_crash=False)
async def count_once() -> None:
    """What is leased in a crash does not begin any more."""


@pytest.mark.parametrize("function", [count_limited, count_once])
async def test_what_should_not_wait_with_a_lease_is_leased_when_it_begins(url: str, function: Any) -> None:
    app, tasks = asking_for(function, url, concurrency=1)
    async with serving(app) as http:
        for _ in range(3):
            await asyncio.gather(*(http.get("/") for _ in range(20)))
        await until_async(lambda: all_succeeded(tasks))
        assert len({record.started_at for record in await records(tasks)}) == 60


async def all_succeeded(tasks: Afterwards) -> bool:
    return {record.state for record in await records(tasks)} == {State.SUCCEEDED}
