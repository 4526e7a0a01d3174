"""How long calls of the PostgreSQL engine wait: for a migration, and for a connection that hangs."""

import asyncio
from datetime import timedelta

import psycopg
import pytest
from postgres_calls import TIMEOUT, new, until, waiting_in

from afterwards.core.errors import EngineUnavailable
from afterwards.engines.postgres import PostgresEngine
from afterwards.engines.postgres.io import notifying, schema, transactions
from servers.postgres import PostgresServer
from servers.proxy import Proxy

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres_server")]

LONG = timedelta(minutes=10)


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
