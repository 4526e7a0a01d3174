"""Tasks stored in the application's own transactions."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from afterwards.core.lifecycle import HOLD
from afterwards.core.task import State
from afterwards.engine import Answer, Engine, Joined
from afterwards.testing.clock import START
from afterwards.testing.conformance.support import SOON, Conformance


class DriverTransaction:
    """A transaction on a connection of a database driver, as an application has it."""

    def __init__(self, dialect: str, connection: Any) -> None:
        self.dialect = dialect
        self.connection = connection
        self.statements = 0

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Answer:
        self.statements += 1
        with closing(self.connection.cursor()) as cursor:
            cursor.execute(statement, tuple(values))
            return Answer(cursor.fetchall() if cursor.description else [], cursor.rowcount)


Begin = Callable[[], AbstractContextManager[DriverTransaction]]


@contextmanager
def sqlite_transaction(path: object) -> Iterator[DriverTransaction]:
    """Open a transaction on a file. It is rolled back unless it is committed."""
    with closing(sqlite3.connect(str(path))) as connection:
        yield DriverTransaction("sqlite", connection)


class Joining(Conformance):
    """A transaction is joined if it is on the tasks' store, and not otherwise."""

    async def test_a_transaction_on_another_database_is_not_joined(self, engine: Engine, tmp_path: Any) -> None:
        for database in (":memory:", tmp_path / "other.db"):
            with sqlite_transaction(database) as transaction:
                assert engine.join(transaction) is None

    async def test_a_database_of_another_kind_is_asked_nothing(self, engine: Engine) -> None:
        with sqlite_transaction(":memory:") as transaction:
            transaction.dialect = "unheard of"
            assert engine.join(transaction) is None
        assert transaction.statements == 0


class TransactionConformance(Conformance):
    """Tasks stored in a transaction of the application commit or roll back with it.

    This is for engines that keep their tasks in a database which applications use, too. Give it the fixtures of
    ``EngineConformance`` and ``begin``.
    """

    @pytest.fixture
    def begin(self) -> Begin:
        raise NotImplementedError(
            "give your class a fixture `begin`: it opens a transaction where `engine` keeps tasks"
        )

    @pytest.fixture
    def transaction(self, engine: Engine, begin: Begin) -> Iterator[DriverTransaction]:
        with begin() as transaction:
            yield transaction

    def joined(self, engine: Engine, transaction: DriverTransaction) -> Joined:
        joined = engine.join(transaction)
        assert joined is not None
        return joined

    async def test_what_is_committed_is_stored_as_if_it_were_enqueued(
        self, engine: Engine, transaction: DriverTransaction
    ) -> None:
        fields: dict[str, Any] = {"queue": "mail", "priority": 5, "origin": "POST /", "retention": SOON}
        fields["arguments"] = '{"who": "Zoë 🦉"}'
        new, other = self.task(**fields), self.task(**fields)
        joined = self.joined(engine, transaction)
        [told] = joined.enqueue([new])
        assert await engine.get([new.id]) == []
        transaction.connection.commit()
        joined.committed()
        [enqueued] = await engine.enqueue([other])
        assert await self.one(engine, new) == told == replace(enqueued, id=new.id)

    async def test_what_is_rolled_back_was_never_there(self, engine: Engine, transaction: DriverTransaction) -> None:
        new = self.task()
        self.joined(engine, transaction).enqueue([new])
        transaction.connection.rollback()
        assert await engine.get([new.id]) == []
        assert await self.claim(engine) == []

    async def test_it_can_be_claimed_once_it_is_committed(self, engine: Engine, transaction: DriverTransaction) -> None:
        new = self.task()
        joined = self.joined(engine, transaction)
        joined.enqueue([new])
        transaction.connection.commit()
        joined.committed()
        [claimed] = await self.claim(engine)
        assert (claimed.id, claimed.attempt) == (new.id, 1)

    async def test_a_held_task_is_held(self, engine: Engine, transaction: DriverTransaction) -> None:
        new = self.task(held=True)
        [told] = self.joined(engine, transaction).enqueue([new])
        transaction.connection.commit()
        assert (told.state, told.run_at) == (State.SCHEDULED, START + HOLD)
        assert await self.claim(engine) == []
        await engine.publish([(told.lease, None)])
        assert await self.states(engine, new) == [State.QUEUED]

    async def test_one_that_comes_after_another_waits(self, engine: Engine, transaction: DriverTransaction) -> None:
        first = self.task()
        await engine.enqueue([first])
        second = self.task(after=first.id)
        third = self.task(after=second.id)
        joined = self.joined(engine, transaction)
        assert [task.state for task in joined.enqueue([second, third])] == [State.WAITING, State.WAITING]
        transaction.connection.commit()
        await self.succeed(engine, *await self.claim(engine))
        assert await self.states(engine, first, second, third) == [State.SUCCEEDED, State.QUEUED, State.WAITING]

    async def test_one_that_comes_after_a_task_that_has_succeeded_is_queued(
        self, engine: Engine, transaction: DriverTransaction
    ) -> None:
        before = await self.ended(engine)
        [told] = self.joined(engine, transaction).enqueue([self.task(after=before.id)])
        assert told.state is State.QUEUED

    async def test_many_are_stored_in_their_order(self, engine: Engine, transaction: DriverTransaction) -> None:
        some = [self.task() for _ in range(100)]
        self.joined(engine, transaction).enqueue(some)
        transaction.connection.commit()
        assert [task.id for task in await self.claim(engine)] == [new.id for new in some]

    async def test_a_transaction_can_be_joined_again(self, engine: Engine, transaction: DriverTransaction) -> None:
        some = [self.task() for _ in range(3)]
        for new in some:
            self.joined(engine, transaction).enqueue([new])
        transaction.connection.commit()
        assert [task.id for task in await engine.get([new.id for new in some])] == [new.id for new in some]
