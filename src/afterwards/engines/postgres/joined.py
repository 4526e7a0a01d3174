"""Store tasks in a transaction that the application began and will commit, on the same database."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import psycopg

from afterwards.core.task import NewTask, Task
from afterwards.engine import Answer, Transaction
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.io import schema
from afterwards.engines.postgres.io.address import Address
from afterwards.engines.postgres.io.errors import translated, translated_at_connecting
from afterwards.engines.postgres.io.notifying import NOTIFY, channel
from afterwards.engines.postgres.io.transactions import SERVER_NOW
from afterwards.engines.postgres.operations import storing
from afterwards.engines.postgres.operations.storing import Call
from afterwards.engines.postgres.work import Conflict, Operation, Work

MOST_TRIES = 5
"""How often tasks with keys are stored again, because others stored the same keys at the same time."""


class Joined:
    """A transaction of the application on the database that also holds its tasks."""

    def __init__(
        self,
        transaction: Transaction,
        name: str,
        clock: Callable[[], datetime] | None,
        announce: Callable[[], None],
    ) -> None:
        self._transaction = transaction
        self._schema = name  # of the schema
        self._clock = clock
        self._announce = announce
        self._is_queued = False

    def prepare(self, address: Address) -> None:
        """Make sure that our tables exist, if nobody has opened the engine yet."""
        [(exists,)] = self._execute(schema.HAS_VERSION, (self._schema,)).rows
        version = int(self._execute(schema.GET_VERSION).rows[0][0]) if exists else 0
        schema.check(version, address)
        if version < schema.VERSION:
            [(has_schema,)] = self._execute(schema.HAS_SCHEMA, (self._schema,)).rows
            for statement in schema.statements(version, self._schema, create=not has_schema):
                self._transaction.execute(statement)

    def enqueue(self, tasks: Sequence[NewTask]) -> list[Task]:
        call = Call(tasks)
        if not call.has_rules:
            return self._enqueue(tasks, 0)
        for tries in range(MOST_TRIES):
            self._execute("SAVEPOINT afterwards_enqueue")
            try:
                stored = self._enqueue(tasks, tries)
            except Conflict:
                self._execute("ROLLBACK TO SAVEPOINT afterwards_enqueue")
            else:
                self._execute("RELEASE SAVEPOINT afterwards_enqueue")
                return stored
        raise Conflict("other transactions store the same keys all the time")

    def committed(self) -> None:
        if self._is_queued:
            self._announce()

    def _enqueue(self, tasks: Sequence[NewTask], tries: int) -> list[Task]:
        work = Work(self._now(), repeated=tries, joined=True)
        stored = self._run(storing.enqueue_or_raise(work, tasks))
        if work.queued:  # sent at the commit: other processes are told even if nobody calls `committed`
            self._execute(NOTIFY, (channel(self._schema), ""))
        self._is_queued |= work.queued
        return stored

    def _now(self) -> datetime:
        if self._clock is not None:
            return self._clock()
        [(now,)] = self._execute(f"SELECT {SERVER_NOW}").rows
        return rows.to_instant(now)

    def _run(self, operation: Operation[list[Task]]) -> list[Task]:
        try:
            statement, values = next(operation)
            while True:
                statement, values = operation.send(self._execute(statement, values))
        except StopIteration as end:
            stored: list[Task] = end.value
            return stored

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> Answer:
        return self._transaction.execute(schema.qualified(statement, self._schema), values)


def identity_of(transaction: Transaction) -> schema.Identity:
    """Return the database that a transaction works on."""
    [found] = transaction.execute(schema.IDENTITY).rows
    return tuple(found)


def look_up(address: Address) -> tuple[schema.Identity, str]:
    """Connect for a moment: return the database, and the first schema in the search path. It blocks.

    Raises EngineUnavailable or EngineError.
    """
    try:
        connection = psycopg.connect(**address.parameters, autocommit=True)
    except psycopg.Error as error:
        raise translated_at_connecting(error, address.shown) from error
    try:
        with connection:
            found = connection.execute(schema.IDENTITY).fetchone()
            first = connection.execute(schema.FIRST_SCHEMA).fetchone()
    except psycopg.Error as error:
        raise translated(error, address.shown) from error
    return tuple(found or ()), schema.named(address, first and first[0])
