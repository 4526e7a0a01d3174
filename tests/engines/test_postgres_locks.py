"""Locks of the PostgreSQL engine: who waits for whom, and the time that counts after the wait."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from random import Random
from typing import Any

import psycopg
import pytest
from postgres_calls import LEASE, TIMEOUT, claim, end, new, until, waiting_in

from afterwards.core.limits import Limit, Rate
from afterwards.core.settling import Raised, Succeeded
from afterwards.core.task import Lease, State
from afterwards.engine import Heartbeat, Paused
from afterwards.engines.postgres import PostgresEngine, rows
from afterwards.engines.postgres.io import schema
from afterwards.engines.postgres.io.transactions import SERVER_CLOCK
from afterwards.engines.postgres.operations import storing
from servers.postgres import PostgresServer
from servers.proxy import Cut, Proxy

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres_crossing")]

DEADLOCK = "deadlock detected"
LIMITS = {"greet": Limit(max_concurrency=1, rate=Rate(1, timedelta(hours=1)))}


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


async def test_ends_heartbeats_cancels_and_publications_lock_in_one_order(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """All act on the same tasks at the same time, in calls that name them in different orders."""
    postgres.configure(log_min_messages="error")
    random, before = Random(3), postgres.log().count(DEADLOCK)
    outcomes = [Succeeded(), Raised(error=ValueError("no")), Raised(error=ValueError("no"), delay=timedelta())]
    async with AsyncExitStack() as opened:
        engines = [await opened.enter_async_context(PostgresEngine(postgres_url)) for _ in range(4)]
        for _ in range(12):
            stored = [new() for _ in range(40)] + [new(held=True) for _ in range(40)]
            random.shuffle(stored)
            await engines[0].enqueue(stored)
            running = await engines[0].claim(claim(40))
            held = [one.id for one in stored if one.held]

            def some(tasks: list[Any], number: int = 30) -> list[Any]:
                return random.sample(tasks, number)

            calls: list[Awaitable[Any]] = []
            for _ in range(3):
                ends = [end(task, random.choice(outcomes)) for task in some(running)]
                calls += [
                    engines[0].finish(ends),
                    engines[1].heartbeat([Heartbeat(task.lease) for task in some(running)], lease=LEASE),
                    engines[2].publish([(Lease(id, 0), None) for id in some(held)]),
                    engines[3].cancel(some([one.id for one in stored], 50), "no"),
                ]
            await asyncio.gather(*calls)
            await engines[0].cancel([one.id for one in stored], "out of the way")
    assert postgres.log().count(DEADLOCK) == before
