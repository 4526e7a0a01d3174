"""Dispatchers of several processes on one PostgreSQL database, beside the claims of a fleet."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from postgres_calls import TIMEOUT, claim, end, new, until, waiting_in

from afterwards.core.limits import Limit
from afterwards.core.task import Lease, State
from afterwards.engine import Query
from afterwards.engines.postgres import PostgresEngine
from servers.postgres import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres_dispatching")]

HOSTS = 4
AGAIN = timedelta(hours=1)
DEADLOCK = "deadlock detected"
LONG = timedelta(minutes=10)
MANY = 100
MOST = 25
"""Statements of a dispatch and a claim for so many, with those of a new connection."""


class CountedConnection(psycopg.AsyncConnection[Any]):
    statements = 0

    async def execute(self, *args: Any, **kwargs: Any) -> psycopg.AsyncCursor[Any]:
        CountedConnection.statements += 1
        return await super().execute(*args, **kwargs)


@pytest.fixture
async def engines(postgres_url: str) -> AsyncIterator[list[PostgresEngine]]:
    """Engines that share nothing but the database."""
    async with AsyncExitStack() as opened:
        yield [await opened.enter_async_context(PostgresEngine(postgres_url)) for _ in range(HOSTS)]


async def sent_by(engine: PostgresEngine, limit: int = 10, **fields: Any) -> list[Lease]:
    """Dispatch until nothing is left to be sent."""
    sent: list[Lease] = []
    while True:
        found = await engine.dispatch(claim(limit, worker="d", **fields), again=AGAIN)
        sent += [one.lease for one in found.tasks]
        if not found.tasks and not found.more:
            return sent


async def test_no_task_is_sent_twice_and_each_is_run_once(
    engines: list[PostgresEngine], postgres: PostgresServer
) -> None:
    postgres.configure(log_min_messages="error")
    before = postgres.log().count(DEADLOCK)
    stored = await engines[0].enqueue([new() for _ in range(400)])
    sent: asyncio.Queue[Lease] = asyncio.Queue()
    times: Counter[Lease] = Counter()
    taken: Counter[str] = Counter()

    async def dispatch(engine: PostgresEngine) -> None:
        while len(taken) < len(stored):
            found = await engine.dispatch(claim(20, worker="d"), again=AGAIN)
            times.update(one.lease for one in found.tasks)
            for one in found.tasks:
                sent.put_nowait(one.lease)
            await asyncio.sleep(0)

    async def run(engine: PostgresEngine) -> None:
        while len(taken) < len(stored):
            leases = [await sent.get()]
            while not sent.empty() and len(leases) < 3:
                leases.append(sent.get_nowait())
            tasks = await engine.claim(claim(worker="fleet", starts=frozenset(leases)))
            taken.update(task.id for task in tasks)
            assert await engine.finish([end(task) for task in tasks]) == []
            await engine.prune(1)

    async with asyncio.timeout(4 * TIMEOUT):
        dispatching = [asyncio.create_task(dispatch(engine)) for engine in engines]
        running = [asyncio.create_task(run(engine)) for engine in engines]
        await asyncio.gather(*dispatching)
    for one in running:
        one.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert {*taken.values()} == {1} and taken.keys() == {task.id for task in stored}
    assert {*times.values()} == {1}
    assert postgres.log().count(DEADLOCK) == before


async def test_who_dispatches_keeps_no_other_dispatcher_and_no_claim_waiting(
    engines: list[PostgresEngine], postgres_url: str
) -> None:
    [task] = await engines[0].enqueue([new()])
    with closing(psycopg.connect(postgres_url)) as open:
        turn = "SELECT pg_try_advisory_xact_lock(hashtextextended('public' || ':dispatch', 0))"
        assert open.execute(turn).fetchone() == (True,)
        assert await engines[0].dispatch(claim(), again=AGAIN) == ([], True)
        [taken] = await engines[1].claim(claim())
        assert taken.id == task.id
        open.rollback()
    assert await engines[0].dispatch(claim(), again=AGAIN) == ([], False)


async def test_an_idle_dispatch_takes_one_statement(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg, "AsyncConnection", CountedConnection)
    fewest = 99  # while connections are made, these take some, too
    async with PostgresEngine(postgres_url) as engine:
        for _ in range(10):
            before = CountedConnection.statements
            assert await engine.dispatch(claim(), again=AGAIN) == ([], False)
            fewest = min(fewest, CountedConnection.statements - before)
    assert fewest == 1


async def test_a_hundred_tasks_take_few_statements(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg, "AsyncConnection", CountedConnection)
    async with PostgresEngine(postgres_url) as engine:
        await engine.enqueue([new() for _ in range(MANY)])
        before = CountedConnection.statements
        found = await engine.dispatch(claim(MANY), again=AGAIN)
        tasks = await engine.claim(claim(MANY, starts=frozenset(one.lease for one in found.tasks)))
        assert CountedConnection.statements - before <= MOST
    assert len(found.tasks) == len(tasks) == MANY


async def test_a_claim_of_a_task_without_limits_does_not_wait_for_those_with(
    engines: list[PostgresEngine], postgres_url: str
) -> None:
    """A fleet's claims name one task each. Only those of limited functions take turns."""
    limits = {"greet": Limit(max_concurrency=1)}
    names = frozenset({"greet", "other"})
    limited, free = await engines[0].enqueue([new(limit_key="*"), new(name="other")])
    with closing(psycopg.connect(postgres_url)) as open:
        open.execute("SELECT pg_advisory_xact_lock(hashtextextended('public' || ':limit:greet', 0))")
        fields: dict[str, Any] = {"limits": limits, "names": names}
        waits = asyncio.create_task(engines[0].claim(claim(starts=frozenset({Lease(limited.id, 1)}), **fields)))
        await until(lambda: waiting_in(open) == 1)
        [taken] = await engines[1].claim(claim(starts=frozenset({Lease(free.id, 1)}), **fields))
        assert taken.id == free.id and not waits.done()
        open.rollback()
    assert [task.id for task in await waits] == [limited.id]


async def test_a_flood_for_one_limit_key_does_not_hide_the_others(engines: list[PostgresEngine]) -> None:
    limits = {"greet": Limit(max_concurrency=1)}
    flood = [new(limit_key="ada") for _ in range(300)]
    others = [new(limit_key=f"k{number}") for number in range(5)]
    elsewhere = new(limit_key="eve", queue="mail", priority=1)
    await engines[0].enqueue([*flood, *others, elsewhere])
    sent = await sent_by(engines[0], limits=limits)
    assert sent == [Lease(task.id, 1) for task in (elsewhere, flood[0], *others)]


async def test_a_task_stored_by_another_process_wakes_a_dispatcher(engines: list[PostgresEngine]) -> None:
    dispatcher, sender = engines[:2]
    await until(lambda: dispatcher._here().notifier.is_listening)
    assert await sent_by(dispatcher) == []
    async with asyncio.timeout(TIMEOUT):
        waiting = asyncio.create_task(dispatcher.wait(LONG))
        [task] = await sender.enqueue([new()])
        await waiting
    assert await sent_by(dispatcher) == [Lease(task.id, 1)]


async def test_what_a_draining_worker_refuses_wakes_a_dispatcher(engines: list[PostgresEngine]) -> None:
    dispatcher, fleet = engines[:2]
    await until(lambda: dispatcher._here().notifier.is_listening)
    [task] = await fleet.enqueue([new()])
    assert await sent_by(dispatcher) == [Lease(task.id, 1)]
    async with asyncio.timeout(TIMEOUT):
        await until_hints_have_come(dispatcher)
        waiting = asyncio.create_task(dispatcher.wait(LONG))
        assert await fleet.claim(claim(0, starts=frozenset({Lease(task.id, 1)}))) == []
        await waiting
    assert await sent_by(dispatcher) == [Lease(task.id, 1)]


async def until_hints_have_come(engine: PostgresEngine) -> None:
    """Return when a wait is not ended by a hint about something that was dispatched before."""
    while True:
        await sent_by(engine)
        waiting = asyncio.create_task(engine.wait(timedelta(milliseconds=200)))
        await waiting
        if not engine._here().wakeup._set:
            return


async def test_after_the_server_has_crashed_what_was_on_its_way_is_sent_again(tmp_path: Any) -> None:
    """The server forgets marks when it crashes: that costs a message, and no task."""
    from servers.postgres import CAREFUL

    with PostgresServer(CAREFUL) as server:
        async with PostgresEngine(server.url()) as engine:
            [task] = await engine.enqueue([new()])
            assert await sent_by(engine) == [Lease(task.id, 1)]
            server.kill()
            server.start()
            async with asyncio.timeout(4 * TIMEOUT):
                assert await sent_by(engine) == [Lease(task.id, 1)]
            [again] = await engine.find(Query())
            assert again.state is State.QUEUED
