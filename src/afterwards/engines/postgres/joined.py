"""Store tasks in a transaction that the application began and will commit, on the same database."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import psycopg

from afterwards.core.task import NewTask, Task
from afterwards.engine import Answer, CommitMode, HasCommitMode, Transaction
from afterwards.engines.postgres import durability, rows
from afterwards.engines.postgres.io import schema
from afterwards.engines.postgres.io.address import Address
from afterwards.engines.postgres.io.errors import crossed, translated, translated_at_connecting
from afterwards.engines.postgres.io.notifying import NOTIFY, channel
from afterwards.engines.postgres.io.transactions import SERVER_NOW
from afterwards.engines.postgres.operations import storing
from afterwards.engines.postgres.operations.storing import Call
from afterwards.engines.postgres.work import Conflict, Operation, Work

LOOK = f"SELECT *, {durability.COMMIT_LEVEL}, pg_is_in_recovery() FROM ({schema.IDENTITY}) AS found"

MOST_TRIES = 5
"""How often tasks with keys are stored again, because others stored the same keys at the same time."""


class Joined:
    """A transaction of the application on the database that also holds its tasks."""

    def __init__(
        self,
        transaction: Transaction,
        name: str,
        address: Address,
        announce: Callable[[], None],
    ) -> None:
        self._transaction = transaction
        self._schema = name  # of the schema
        self._address = address
        self._announce = announce
        self._is_queued = False

    def prepare(self) -> None:
        """Make sure that our tables exist, if nobody has opened the engine yet."""
        version = self._version()
        if version < schema.VERSION:
            self._execute(schema.TAKE_TURNS)  # others that start now wait until the application commits
            version = self._version()
        if version < schema.VERSION:
            [(has_schema,)] = self._execute(schema.HAS_SCHEMA, (self._schema,)).rows
            for statement in schema.statements(version, self._schema, create=not has_schema):
                self._transaction.execute(statement)

    def enqueue(self, tasks: Sequence[NewTask]) -> list[Task]:
        """Store tasks as part of the transaction. Raises QueueFull, EngineUnavailable, and the driver's errors."""
        try:
            return self._enqueue_again(tasks) if Call(tasks).has_rules else self._enqueue(tasks, 0)
        except Conflict as error:
            raise crossed(self._address.shown) from error

    def committed(self) -> None:
        if self._is_queued:
            self._announce()

    def _version(self) -> int:
        [(exists,)] = self._transaction.execute(schema.HAS_VERSION, (self._schema,)).rows
        found = self._execute(schema.GET_VERSION).rows if exists else [(0,)]
        if not found:  # tables made after the transaction's snapshot
            return schema.VERSION
        version = int(found[0][0])
        schema.check(version, self._address)
        return version

    def _enqueue_again(self, tasks: Sequence[NewTask]) -> list[Task]:
        """Store tasks with keys, again after others have stored the same ones. Raises Conflict after the last time."""
        for tries in range(MOST_TRIES):
            self._execute("SAVEPOINT afterwards_enqueue")
            try:
                stored = self._enqueue(tasks, tries)
            except Conflict:
                self._execute("ROLLBACK TO SAVEPOINT afterwards_enqueue")
            else:
                self._execute("RELEASE SAVEPOINT afterwards_enqueue")
                return stored
        raise Conflict

    def _enqueue(self, tasks: Sequence[NewTask], tries: int) -> list[Task]:
        work = Work(self._now(), repeated=tries, joined=True)
        stored = self._run(storing.enqueue_or_raise(work, tasks))
        # Sent at the commit: other processes are told even if nobody calls `committed`. They poll, too, and the server
        # prepares no transaction that sends anything.
        if work.queued and commit_mode(self._transaction) is not CommitMode.IN_TWO_PHASES:
            self._execute(NOTIFY, (channel(self._schema), ""))
        self._is_queued |= work.queued
        return stored

    def _now(self) -> datetime:
        if self._address.clock is not None:
            return self._address.clock()
        [(now,)] = self._execute(f"SELECT {SERVER_NOW}").rows
        return rows.to_instant(now)

    def _run(self, operation: Operation[list[Task]]) -> list[Task]:
        try:
            requests = next(operation)
            while True:
                requests = operation.send([self._execute(statement, values) for statement, values in requests])
        except StopIteration as end:
            stored: list[Task] = end.value
            return stored

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> Answer:
        return self._transaction.execute(schema.qualified(statement, self._schema), values)


def commit_mode(transaction: Transaction) -> CommitMode:
    return transaction.commit_mode if isinstance(transaction, HasCommitMode) else CommitMode.TOGETHER


def identity_of(transaction: Transaction) -> schema.Identity | None:
    """Return the database that a transaction works on; None for a standby's copy, where nothing can be stored."""
    [(identifier, oid, commit_level, is_standby)] = transaction.execute(LOOK).rows
    if is_standby:
        return None
    durability.say_what_is_lost_with(commit_level)
    return identifier, oid


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
