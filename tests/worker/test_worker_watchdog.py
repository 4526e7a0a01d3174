"""A task that blocks the event loop is named; nobody else is."""

import asyncio
import re
import time

import pytest
from fastapi import FastAPI

from afterwards import Afterwards, task
from face.diary import take, take_in_thread
from face.serving import serving, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task
async def blocker(seconds: float) -> None:
    await asyncio.sleep(0)
    time.sleep(seconds)  # noqa: ASYNC251  # as careless users do


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "blocked the event loop" in record.message]


async def test_a_task_that_blocks_the_loop_is_named_with_the_line_and_what_to_do(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(url):
        handle = await blocker.enqueue(0.4)
        await handle.result(timeout=10)
        [warning] = await until(lambda: warnings(caplog))
    assert f"task blocker ({handle.id})" in warning
    assert f"{__file__}:{blocker.function.__code__.co_firstlineno + 3}" in warning
    assert "or a `def` function, which runs in a thread" in warning
    [blocked] = re.findall(r"for (\d+) ms", warning)
    assert int(blocked) > 200


async def test_one_that_goes_on_blocking_is_named_while_it_does(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its warning may be the last thing that is ever heard of it."""
    begun = time.monotonic()
    async with working(url):
        handle = await blocker.enqueue(2)
        await handle.result(timeout=10)
        [_] = warnings(caplog)
    told_at = next(record.created for record in caplog.records if "blocked the event loop" in record.message)
    assert told_at < time.time() - (time.monotonic() - begun) + 2


async def test_tasks_that_wait_and_tasks_in_threads_are_not_named(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with working(url):
        for function in (take, take_in_thread):
            await (await function.enqueue(0.4)).result(timeout=10)
    assert warnings(caplog) == []


async def test_an_endpoint_that_blocks_is_not_blamed_on_a_task(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def endpoint() -> None:
        time.sleep(0.4)  # noqa: ASYNC251  # as careless users do

    async with serving(app) as http:
        handle = await take.enqueue(1)
        await until(lambda: said)
        await http.get("/")
        await handle.result(timeout=10)
    assert warnings(caplog) == []
