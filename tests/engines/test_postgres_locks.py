"""Locks of the PostgreSQL engine: who waits for whom, and the time that counts after the wait."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from postgres_calls import LEASE, claim, new

from afterwards.core.limits import Limit, Rate
from afterwards.core.task import State
from afterwards.engine import Paused
from afterwards.engines.postgres import PostgresEngine, rows
from afterwards.engines.postgres.io import schema
from afterwards.engines.postgres.io.transactions import SERVER_CLOCK
from afterwards.engines.postgres.operations import storing
from servers.postgres import PostgresServer
from servers.proxy import Cut, Proxy

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres_crossing")]

TIMEOUT = 30.0
LIMITS = {"greet": Limit(max_concurrency=1, rate=Rate(1, timedelta(hours=1)))}

WAITING = """
    SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted
"""


@pytest.fixture
async def engine(postgres_url: str) -> AsyncIterator[PostgresEngine]:
    async with PostgresEngine(postgres_url) as engine:
        yield engine


@contextmanager
def limit_held(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Hold the lock of claims of limited tasks. It is released by a rollback."""
    with psycopg.connect(url) as connection:
        hashes = schema.qualified(storing.HASHES, "public")
        [key] = connection.execute(hashes, (":limit:", ["greet"])).fetchone() or ()  # type: ignore[call-overload]
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
        yield connection


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def waiting_in(connection: psycopg.Connection[Any]) -> int:
    [count] = connection.execute(WAITING).fetchone() or ()
    return int(count)


async def test_no_task_starts_after_a_pause_whose_claim_waited(engine: PostgresEngine, postgres_url: str) -> None:
    await engine.enqueue([new(limit_key="*")])
    async with PostgresEngine(postgres_url) as other, asyncio.TaskGroup() as group:
        with limit_held(postgres_url) as connection:
            claiming = group.create_task(other.claim(claim(limits=LIMITS)))
            await until(lambda: waiting_in(connection) == 1)
            pausing = group.create_task(engine.pause(Paused(names=frozenset({"greet"}))))
            await until(lambda: pausing.done() or waiting_in(connection) == 2)
            is_paused = pausing.done()
            connection.rollback()
            taken = await claiming
    assert not (is_paused and taken)


async def test_no_task_starts_after_a_pause_whose_claim_had_looked_before(
    postgres: PostgresServer, postgres_url: str, engine: PostgresEngine
) -> None:
    """The pause is between the two messages of a claim: the look, and the transaction."""
    with Proxy(postgres.port) as proxy:
        async with PostgresEngine(postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")) as slow:
            await slow.enqueue([new()])
            pieces: list[bytes] = []

            def pause_in_between(piece: bytes) -> bool:
                if b"BEGIN" in piece and not pieces:
                    thread = threading.Thread(target=asyncio.run, args=(engine.pause(Paused(names={"greet"})),))  # type: ignore[arg-type]
                    thread.start()
                    thread.join(TIMEOUT)
                    pieces.append(piece)
                return False

            proxy.cut(Cut(asked=pause_in_between))
            assert await slow.claim(claim()) == []
            proxy.forget_cuts()
    assert pieces
    assert (await engine.stats()).counts == {("default", State.QUEUED): 1}


async def test_a_claim_that_waited_counts_from_the_end_of_its_wait(engine: PostgresEngine, postgres_url: str) -> None:
    await engine.enqueue([new(limit_key="*")])
    async with asyncio.TaskGroup() as group:
        with limit_held(postgres_url) as connection:
            claiming = group.create_task(engine.claim(claim(limits=LIMITS)))
            await until(lambda: waiting_in(connection) == 1)
            [now] = connection.execute(f"SELECT {SERVER_CLOCK}").fetchone() or ()
            connection.rollback()
        [task] = await claiming
    released_at = rows.to_instant(now)
    assert task.started_at and task.started_at >= released_at
    assert task.lease_until == task.started_at + LEASE
    with psycopg.connect(postgres_url) as connection:
        [started] = connection.execute("SELECT at FROM afterwards_starts").fetchone() or ()
    assert rows.to_instant(started) == task.started_at
