"""When a request's tasks start: when it has ended, and not before."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from time import monotonic
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

from afterwards import Afterwards, BackgroundTasks, State
from afterwards.client.client import HeldBack
from afterwards.core.task import Lease
from afterwards.testing.clock import START
from face.diary import note, take
from face.diary import said as the_diary
from face.serving import serving, until, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


def test_a_clock_that_is_put_right_meanwhile_makes_no_delay_longer() -> None:
    day, ten = timedelta(days=1), timedelta(seconds=10)
    held = HeldBack(Lease("one", 1), run_at=START + day + ten, due=monotonic() + 10)
    assert held.start(START + day) == held.run_at
    left = held.start(START)
    assert isinstance(left, timedelta)
    assert timedelta() <= left <= ten
    chosen = HeldBack(Lease("two", 1), run_at=START + day)
    assert chosen.start(START) == chosen.run_at


async def passing_on(request: Any, call_next: Any) -> Any:
    response = await call_next(request)
    the_diary.append("middleware")
    return response


async def session() -> AsyncIterator[None]:
    yield
    await asyncio.sleep(0.05)  # a commit takes its time; a worker that does not wait would be quicker
    the_diary.append("committed")


@pytest.mark.parametrize("middleware", ["none", "before", "after", "class"])
@pytest.mark.parametrize("where", ["leased here", "queued"])
async def test_no_task_starts_before_the_response_was_sent_and_the_session_has_committed(
    url: str, said: list[str], middleware: str, where: str
) -> None:
    app = FastAPI()
    if middleware == "before":
        app.middleware("http")(passing_on)
    # With one slot the first task is leased as it is stored, the others are only scheduled.
    Afterwards(app, url, concurrency=1 if where == "queued" else 20, ordered=False)
    if middleware == "after":
        app.middleware("http")(passing_on)
    if middleware == "class":
        app.add_middleware(BaseHTTPMiddleware, dispatch=passing_on)
        app.add_middleware(GZipMiddleware)

    @app.get("/")
    async def handler(tasks: BackgroundTasks, session: Annotated[None, Depends(session)]) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"one"
            await asyncio.sleep(0.05)
            yield b"two"
            said.append("sent")

        for _ in range(3):
            tasks.add_task(note, "run")
        return StreamingResponse(body())

    async with serving(app) as http:
        assert (await http.get("/")).text == "onetwo"
        await until(lambda: said.count("run") == 3)
    expected = ["sent", "committed", "run", "run", "run"]
    assert said == expected if middleware == "none" else [line for line in said if line != "middleware"] == expected


async def test_what_was_made_by_hand_is_stored_before_the_response_begins(url: str) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)
    states = list[State]()

    @app.get("/")
    async def handler() -> StreamingResponse:
        made = BackgroundTasks()
        handle = made.add_task(note, "by hand")

        async def body() -> AsyncIterator[str]:
            states.append((await (await tasks.get(handle.id)).status()).state)
            yield handle.id

        return StreamingResponse(body(), background=made)

    async with serving(app) as http:
        id = (await http.get("/")).text
        await (await tasks.get(id)).result(timeout=10)
    assert states[0] in (State.SCHEDULED, State.RUNNING)


async def test_a_plain_task_has_ended_before_the_durable_ones_start(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url)

    async def slowly() -> None:
        await asyncio.sleep(0.05)
        said.append("plain")

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "durable")
        tasks.add_task(slowly)

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: "durable" in said)
    assert said == ["plain", "durable"]


async def test_a_plain_task_that_fails_stops_no_durable_one(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task({}["missing"].call) if False else tasks.add_task({}.__getitem__, "missing")
        tasks.add_task(note, "durable")

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: said == ["durable"])


async def test_a_delayed_task_waits_for_its_time_and_not_only_for_its_request(url: str, said: list[str]) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "now")
        handle = background_tasks.add_task(note.options(delay=3600), "in an hour")
        background_tasks.add_task(note, "now, too")
        return handle.id

    async with serving(app) as http:
        id = (await http.get("/")).json()
        await until(lambda: len(said) == 2)
        await asyncio.sleep(0.1)
        task = await (await tasks.get(id)).status()
    assert said == ["now", "now, too"]
    assert task.state is State.SCHEDULED
    assert task.run_at is not None
    assert 3500 < (task.run_at - task.created_at).total_seconds() < 3700


async def test_a_delay_that_is_over_before_the_request_is_starts_nothing(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> StreamingResponse:
        background_tasks.add_task(note.options(delay=0.01), "delayed")

        async def body() -> AsyncIterator[str]:
            yield "one"
            await asyncio.sleep(0.2)
            said.append("sent")

        return StreamingResponse(body())

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: len(said) == 2)
    assert said == ["sent", "delayed"]


async def test_a_request_that_goes_on_for_long_starts_its_tasks_when_it_ends(url: str, said: list[str]) -> None:
    """It gives its slots back after a second or two, and gets no failure on record for that."""
    app = FastAPI()
    tasks = Afterwards(app, url, concurrency=1)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> StreamingResponse:
        handle = background_tasks.add_task(note, "held back")

        async def body() -> AsyncIterator[str]:
            yield handle.id
            await (await note.enqueue("another, meanwhile")).result(timeout=5)
            said.append("sent")

        return StreamingResponse(body())

    async with serving(app) as http:
        id = (await http.get("/")).text
        assert await (await tasks.get(id)).result(timeout=5) == "held back"
        assert (await (await tasks.get(id)).status()).failures == ()
    assert said == ["another, meanwhile", "sent", "held back"]


async def test_tasks_start_although_the_client_has_gone(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(note, "durable")

        async def body() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.001)

        return StreamingResponse(body())

    async with serving(app) as http:
        async with http.stream("GET", "/") as response:
            await anext(response.aiter_bytes())
            assert said == []
        await until(lambda: said == ["durable"])


async def test_tasks_start_although_the_stream_breaks(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(note, "durable")

        async def body() -> AsyncIterator[bytes]:
            yield b"one"
            raise RuntimeError("broken")

        return StreamingResponse(body())

    async with serving(app) as http:
        with pytest.raises(Exception, match="peer closed"):
            await http.get("/")
        await until(lambda: said == ["durable"])


async def test_a_task_cancelled_before_its_request_ended_never_starts(url: str, said: list[str]) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> str:
        handle = background_tasks.add_task(note, "cancelled")
        await background_tasks.flush()
        await handle.cancel("changed my mind")
        return handle.id

    async with serving(app) as http:
        handle = await tasks.get((await http.get("/")).json())
        task = await until_async(lambda: finished(handle))
    assert (task.state, task.reason) == (State.CANCELLED, "changed my mind")
    assert said == []


async def test_requests_do_not_wait_for_each_other(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/slow")
    async def slow(tasks: BackgroundTasks) -> None:
        tasks.add_task(take, 0.3, "slow")

    @app.get("/quick")
    async def quick(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "quick")

    async with serving(app) as http:
        await http.get("/slow")
        await http.get("/quick")
        await until(lambda: "slow ended" in said)
    assert said == ["slow began", "quick", "slow ended"]


async def finished(handle: Any) -> Any:
    task = await handle.status()
    return task if task.state.finished else None
