"""Tasks in the open transaction of a psycopg connection: calls that are cancelled or overlap, kinds of connections."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI

from afterwards import Afterwards, InvalidOption
from face.serving import until
from sessions.sessions_support import greet, stored

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True), pytest.mark.xdist_group("postgres_sessions")]

WAITING_FOR_A_LOCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.fixture
async def app(postgres_url: str) -> AsyncIterator[FastAPI]:
    """An application that only stores, and whose tasks are kept in its own database."""
    app = FastAPI()
    app.state.tasks = Afterwards(app, postgres_url, worker=False)
    async with app.router.lifespan_context(app):
        yield app


async def start(call: Awaitable[Any]) -> asyncio.Task[Any]:
    """Start a call, and let its thread come to its first statement."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0.2)
    assert isinstance(task, asyncio.Task)
    return task


async def is_blocked(url: str) -> None:
    """Return when a statement waits for a lock on the server."""
    with psycopg.connect(url, autocommit=True) as looking:
        await until(lambda: looking.execute(WAITING_FOR_A_LOCK).fetchone() == (1,))


# Calls that are cancelled.


@pytest.mark.parametrize("autocommit", [True, False])
async def test_a_cancelled_call_sends_nothing_after_it_has_returned(
    app: FastAPI, postgres_url: str, autocommit: bool
) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=autocommit) as connection:
        for step in range(20):
            with suppress(TimeoutError):
                async with connection.transaction():
                    await connection.execute("SELECT 1")
                    async with asyncio.timeout(0.0005 + 0.0003 * step):
                        await greet.options(connection=connection).enqueue("ada")
                    raise psycopg.Rollback
            async with connection.transaction():  # of whoever uses the connection next
                await connection.execute("SELECT pg_sleep(0.02)")
    assert await stored(app) == []


async def test_a_cancelled_call_on_a_synchronous_connection_sends_nothing_after_it_has_returned(
    app: FastAPI, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        with pytest.raises(asyncio.CancelledError), connection.transaction():
            with connection.lock:  # the first statement waits for it
                call = await start(greet.options(connection=connection).enqueue("ada"))
                for _ in range(3):
                    call.cancel()
                    await asyncio.sleep(0.02)
            await call
        await asyncio.sleep(0.2)
    assert await stored(app) == []


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_call_does_not_wait_for_a_lock_on_the_server(
    app: FastAPI, postgres_url: str, times: int
) -> None:
    async with (
        await psycopg.AsyncConnection.connect(postgres_url) as connection,
        await psycopg.AsyncConnection.connect(postgres_url) as other,
    ):
        first = await greet.options(connection=other, unique="one").enqueue("eve")
        call = await start(greet.options(connection=connection, unique="one").enqueue("ada"))
        await is_blocked(postgres_url)
        for _ in range(times):
            call.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(10):
                await call
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        await connection.rollback()
    assert [task.id for task in await stored(app)] == [first.id]


@pytest.mark.parametrize("step", range(12))
async def test_no_part_of_a_cancelled_call_can_be_committed(app: FastAPI, postgres_url: str, step: int) -> None:
    with psycopg.connect(postgres_url) as connection:
        call = asyncio.ensure_future(greet.options(connection=connection).enqueue("ada"))
        await asyncio.sleep(0.001 * step)
        call.cancel()
        await asyncio.wait([call])
        status, count = connection.info.transaction_status.name, None
        if status == "INTRANS":  # it had ended
            count = connection.execute("SELECT count(*) FROM afterwards_tasks").fetchone()
        assert (status, count) in [("IDLE", None), ("INERROR", None), ("INTRANS", (1,))]
        connection.rollback()


# Calls that overlap.


async def test_calls_at_a_time_on_one_connection_take_turns(app: FastAPI, postgres_url: str) -> None:
    async with (
        await psycopg.AsyncConnection.connect(postgres_url) as connection,
        await psycopg.AsyncConnection.connect(postgres_url) as other,
    ):
        first = await greet.options(connection=other, unique="one").enqueue("eve")
        calls = asyncio.gather(
            greet.options(connection=connection, unique="one").enqueue("ada"),
            greet.options(connection=connection, unique="two").enqueue("bob"),
        )
        await is_blocked(postgres_url)
        await other.commit()
        one, two = await calls
        await connection.commit()
    assert [task.id for task in await stored(app)] == [one.id, two.id] == [first.id, two.id]


# Kinds of connections.


async def test_the_class_of_a_connections_cursors_does_not_matter(app: FastAPI, postgres_url: str) -> None:
    factory: Callable[..., Any] = psycopg.AsyncRawCursor
    async with await psycopg.AsyncConnection.connect(postgres_url, cursor_factory=factory) as connection:
        await greet.options(connection=connection, unique="one").enqueue("ada")
    with psycopg.connect(postgres_url, cursor_factory=psycopg.RawCursor) as blocking:
        await greet.options(connection=blocking, unique="two").enqueue("eve")
    assert len(await stored(app)) == 2


async def test_a_connection_in_pipeline_mode_is_refused(app: FastAPI, postgres_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        async with connection.pipeline():
            with pytest.raises(InvalidOption, match="pipeline mode"):
                await greet.options(connection=connection).enqueue("ada")
        await greet.options(connection=connection).enqueue("eve")
    with psycopg.connect(postgres_url) as blocking, blocking.pipeline(), pytest.raises(InvalidOption, match="pipeline"):
        await greet.options(connection=blocking).enqueue("ada")
    assert len(await stored(app)) == 1
