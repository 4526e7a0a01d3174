"""How the PostgreSQL engine talks to its server: in how few messages, and how values are written into them."""

from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
import pytest
from postgres_calls import claim, end, new

from afterwards.core.errors import RefusedValue
from afterwards.core.task import Lease, State
from afterwards.engine import Paused
from afterwards.engines.postgres import PostgresEngine
from afterwards.engines.postgres.io import messages

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres_dispatching")]

R = TypeVar("R")

VALUES = ["", "it's", 'a "name"', "back\\slash", "\\'; DROP TABLE x; --", "{a,b}", "NULL", "ü€🎉\n\t", "%s %% $1"]


class CountedConnection(psycopg.AsyncConnection[Any]):
    messages = 0

    async def execute(self, *args: Any, **kwargs: Any) -> psycopg.AsyncCursor[Any]:
        CountedConnection.messages += 1
        return await super().execute(*args, **kwargs)


@pytest.fixture
async def engine(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresEngine]:
    monkeypatch.setattr(psycopg, "AsyncConnection", CountedConnection)
    async with PostgresEngine(postgres_url) as engine:
        yield engine


class Fewest:
    """The fewest messages that each kind of call took: the first ones also prepare statements."""

    def __init__(self) -> None:
        self.by_kind: dict[str, int] = {}

    async def __call__(self, kind: str, call: Awaitable[R]) -> R:
        before = CountedConnection.messages
        result = await call
        self.by_kind[kind] = min(self.by_kind.get(kind, 99), CountedConnection.messages - before)
        return result


async def test_usual_calls_take_few_messages(engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine._here().notifier, "hint", engine._here().wakeup.set)
    fewest = Fewest()
    for _ in range(10):
        held = new(held=True)
        await fewest("enqueue", engine.enqueue([new(), new(), held]))
        await fewest("publish", engine.publish([(Lease(held.id, 0), None)]))
        tasks = await fewest("claim", engine.claim(claim(2)))
        tasks += await fewest("claim again", engine.claim(claim(2)))
        assert await fewest("finish", engine.finish([end(task) for task in tasks])) == []
        assert await fewest("idle claim", engine.claim(claim(2))) == []
        leased = await fewest("enqueue and lease", engine.enqueue([new()], claim=claim()))
        await engine.finish([end(task) for task in leased])
    assert fewest.by_kind == {
        "enqueue": 2,
        "publish": 1,
        "claim": 3,
        "claim again": 2,
        "finish": 2,
        "idle claim": 1,
        "enqueue and lease": 2,
    }


async def test_a_claim_that_does_not_look_first_minds_what_others_have_done(
    engine: PostgresEngine, postgres_url: str
) -> None:
    async with PostgresEngine(postgres_url) as other:
        await engine.enqueue([new() for _ in range(9)])
        assert len(await engine.claim(claim(1))) == 1
        await other.pause(Paused(names=frozenset({"greet"})))
        assert await engine.claim(claim(1)) == []
        await other.resume(Paused(names=frozenset({"greet"})))
        assert len(await engine.claim(claim(1))) == 1
        [better] = await other.enqueue([new(queue="mail", priority=9)])
        assert [task.id for task in await engine.claim(claim(1))] == [better.id]
        overdue, due = await other.enqueue([new(expires=timedelta(0)), new(wait=timedelta(0), priority=8)])
        assert [task.id for task in await engine.claim(claim(1))] == [due.id]
        [overdue] = await other.get([overdue.id])
        assert overdue.state is State.CANCELLED


async def test_values_arrive_as_they_are(postgres_url: str) -> None:
    prepared = messages.Prepared()
    statement = "SELECT %s::text, %s::text[], %s::bigint, %s::boolean, %s::text, 7 %% 4, %s::bigint[]"
    for strings in ("on", "off"):
        async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
            await connection.execute(f"SET standard_conforming_strings = {strings}")
            await connection.execute("SET escape_string_warning = off")
            for value in VALUES:
                given = (value, VALUES, -(2**60), True, None, [1, -2])
                texts = [await prepared.execution(connection, statement, given), messages.inlined(statement, given)]
                for answer in await messages.answers(connection, texts):
                    assert answer.rows == [(value, VALUES, -(2**60), True, None, 3, [1, -2])]


async def test_a_text_that_the_server_cannot_store_is_refused(engine: PostgresEngine) -> None:
    await engine.enqueue([new()])
    with pytest.raises(RefusedValue):
        await engine.claim(claim(1, worker="a\0b"))
    assert len(await engine.claim(claim(1))) == 1


async def test_statements_that_somebody_deallocates_are_prepared_again(engine: PostgresEngine) -> None:
    await engine._here().transact(_deallocate_all)
    [task] = await engine.enqueue([new()])
    assert (await engine.get([task.id]))[0].id == task.id


def _deallocate_all(work: Any) -> Any:
    yield [("DEALLOCATE ALL", ())]
