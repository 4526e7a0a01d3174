"""How long calls of the PostgreSQL engine wait: for a migration, and for a connection that hangs."""

import asyncio
import time
from datetime import timedelta

import psycopg
import pytest
from postgres_calls import TIMEOUT, new, until, waiting_in

from afterwards.core.errors import EngineUnavailable
from afterwards.engine import Query
from afterwards.engines.memory import MemoryEngine
from afterwards.engines.postgres import PostgresEngine
from afterwards.engines.postgres.io import notifying, schema, transactions
from afterwards.engines.postgres.io.connections import SETTINGS
from servers.postgres import PostgresServer
from servers.proxy import Forward, Hold, Proxy

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres_server")]

LONG = timedelta(minutes=10)
SLOW = Forward(0.005, 0.005)
"""A line on which a batch takes seconds."""

CONNECTING = 5.0
"""Seconds that an attempt to connect takes if nobody answers."""


async def test_a_call_does_not_wait_for_the_migration_of_another_process(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "PATIENCE", 0.5)
    engine = PostgresEngine(postgres_url)
    with psycopg.connect(postgres_url) as other:
        other.execute(schema.TAKE_TURNS)
        opening = asyncio.create_task(engine.__aenter__())
        await until(lambda: waiting_in(other) == 1)
        for call in (engine.stats, lambda: engine.enqueue([new()])):
            with pytest.raises(EngineUnavailable, match=r"has not answered for 0\.5 seconds"):
                async with asyncio.timeout(TIMEOUT):
                    await call()  # type: ignore[operator]
        monkeypatch.undo()
        other.rollback()
    await opening
    assert len(await engine.enqueue([new()])) == 1
    await engine.__aexit__(None, None, None)


async def test_a_read_is_not_repeated_after_its_time(
    postgres: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(postgres.port) as proxy:
        async with PostgresEngine(postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")) as engine:
            assert await engine.find(Query()) == []
            monkeypatch.setattr(transactions, "PATIENCE", 0.5)
            proxy.switch(Hold())
            began = time.monotonic()
            with pytest.raises(EngineUnavailable, match=r"has not answered for 0\.5 seconds"):
                await engine.find(Query())
            assert time.monotonic() - began < CONNECTING
            monkeypatch.undo()
            proxy.switch(Forward())


async def test_a_large_batch_of_a_move_may_take_longer_than_other_calls(
    postgres: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
        monkeypatch.setitem(SETTINGS, setting, "500ms")
    with Proxy(postgres.port) as proxy:
        url = postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")
        async with PostgresEngine(url) as engine, MemoryEngine() as other:
            tasks = [new(arguments=f'{{"text": "{"x" * 1024 * 1024}"}}') for _ in range(3)]
            await engine.enqueue(tasks)
            monkeypatch.setattr(transactions, "PATIENCE", 0.5)
            proxy.switch(SLOW)
            assert await engine.hand_over("there", limit=10)
            assert await engine.put_back()
            batch = await engine.hand_over("there", limit=10)
            assert batch
            await other.take_over(batch)
            assert await engine.hand_over("there", limit=10, done=batch) is None
            batch = await other.hand_over("here", limit=10)
            assert batch
            await engine.take_over(batch)
            monkeypatch.undo()
            assert [task.id for task in await engine.get([task.id for task in tasks])] == [task.id for task in tasks]


async def test_a_connection_for_hints_that_is_lost_without_a_word_is_replaced(
    postgres: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifying, "CHECK_EVERY", 0.2)
    monkeypatch.setattr(notifying, "PATIENCE", 0.5)
    with Proxy(postgres.port) as proxy:
        url = postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")
        async with PostgresEngine(url) as engine, PostgresEngine(postgres_url) as other:
            notifier = engine._here().notifier
            await until(lambda: notifier.is_listening)
            proxy.lose()
            await until(lambda: not notifier.is_listening)
            await until(lambda: notifier.is_listening)
            engine._here().wakeup.clear()
            async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
                group.create_task(engine._here().wakeup.wait(LONG))
                await other.enqueue([new()])
