"""Store tasks in the open transaction of a plain psycopg connection: they commit or roll back with it."""

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from anyio import CancelScope

from afterwards import engines, telemetry
from afterwards.client.client import Client
from afterwards.core.errors import InvalidOption
from afterwards.core.task import NewTask, Task
from afterwards.engine import Answer

R = TypeVar("R")

SPOIL = "ROLLBACK TO SAVEPOINT afterwards_call_was_cancelled"
"""Fails, because there is no such savepoint: then the transaction can only be rolled back."""

# Two calls at a time would use the same savepoint, and one would roll back what the other has stored.
_turns: WeakKeyDictionary[Any, "threading.RLock"] = WeakKeyDictionary()
_async_turns: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()


class ConnectionTransaction:
    """The open transaction of a connection, for an engine to join in one call."""

    dialect = "postgresql"

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._is_used = False
        self._is_stopped = False

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Answer:
        self._note_use()
        return self._send(statement, values)

    def stop(self) -> None:
        """Let the call end before its next statement."""
        self._is_stopped = True

    def spoil_if_stopped(self) -> None:
        """Make a commit impossible after a part of the call, as a cancelled statement of psycopg's does."""
        psycopg = sys.modules["psycopg"]
        is_open = self._connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        if self._is_stopped and self._is_used and is_open:
            with suppress(psycopg.Error):
                self._send(SPOIL)

    def _note_use(self) -> None:
        if self._is_stopped:
            raise Stopped
        self._is_used = True

    def _send(self, statement: str, values: Sequence[Any] = ()) -> Answer:
        psycopg = sys.modules["psycopg"]  # not `connection.cursor()`: cursors of other classes read no %s
        with psycopg.Cursor(self._connection, row_factory=psycopg.rows.tuple_row) as cursor:
            cursor.execute(statement, tuple(values) or None)
            return Answer(cursor.fetchall() if cursor.description else [], cursor.rowcount)


class AsyncConnectionTransaction(ConnectionTransaction):
    """The open transaction of an AsyncConnection. The engine runs in a thread, and the statements on the event loop."""

    def __init__(self, connection: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(connection)
        self._loop = loop
        self._running: asyncio.Task[Any] | None = None

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Answer:
        return self._result(self._execute(statement, values))

    def stop(self) -> None:
        """Let the call end, and with it the statement that runs: it may wait for a lock of the one who cancels."""
        super().stop()
        if self._running and not self._running.cancelling():  # at the second time psycopg closes the connection
            self._running.cancel()

    async def _execute(self, statement: str, values: Sequence[Any]) -> Answer:
        self._note_use()
        self._running = asyncio.current_task()
        try:
            return await self._send_async(statement, values)
        finally:
            self._running = None

    def _send(self, statement: str, values: Sequence[Any] = ()) -> Answer:
        return self._result(self._send_async(statement, values))

    async def _send_async(self, statement: str, values: Sequence[Any]) -> Answer:
        psycopg = sys.modules["psycopg"]
        async with psycopg.AsyncCursor(self._connection, row_factory=psycopg.rows.tuple_row) as cursor:
            await cursor.execute(statement, tuple(values) or None)
            return Answer(await cursor.fetchall() if cursor.description else [], cursor.rowcount)

    def _result(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()


class Stopped(Exception):
    """The caller was cancelled. Nobody sees this error."""


def check_connection(connection: Any) -> None:
    """Raise InvalidOption for an object that is not a connection of psycopg's."""
    psycopg = sys.modules.get("psycopg")  # with a connection it is loaded already
    if psycopg is None or not isinstance(connection, (psycopg.Connection, psycopg.AsyncConnection)):
        made = isinstance(connection, type)
        kind = connection.__qualname__ if made else f"an object of type {type(connection).__qualname__}"
        raise InvalidOption(
            f"connection={kind}: give a connection of psycopg 3 (Connection, AsyncConnection), not its class or pool; "
            "a session of SQLAlchemy's is given as session=..."
        )


def check_sync_connection(connection: Any, instead: str) -> None:
    """Raise InvalidOption for an asynchronous connection, where nothing can be awaited."""
    check_connection(connection)
    if is_async(connection):
        raise InvalidOption(f"connection=an AsyncConnection: only `await` can use it: write `{instead}`")


def is_async(connection: Any) -> bool:
    return isinstance(connection, sys.modules["psycopg"].AsyncConnection)


def store(connection: Any, tasks: Sequence[NewTask], client: Client) -> list[Task] | None:
    """Insert tasks in a connection's transaction. Returns None in tests whose tasks are kept in memory.

    Raises QueueFull, InvalidOption if it has no open transaction or is on another database, and the driver's errors.
    """
    return _store(ConnectionTransaction(connection), connection, tasks, client)


async def store_async(connection: Any, tasks: Sequence[NewTask], client: Client) -> list[Task] | None:
    """Insert tasks as ``store`` does, on either kind of connection, without blocking the event loop.

    After a cancellation it returns when the last statement has ended. None follows, and the transaction cannot be
    committed if any was sent.
    """
    if not is_async(connection):
        transaction = ConnectionTransaction(connection)
        return await _in_thread(lambda: _store(transaction, connection, tasks, client), transaction.stop)
    async with _async_turns.setdefault(connection, asyncio.Lock()):
        _check_transaction(connection)
        transaction = AsyncConnectionTransaction(connection, asyncio.get_running_loop())
        return await _in_thread(lambda: _join(transaction, tasks, client), transaction.stop)


async def _in_thread(call: Callable[[], R], stop: Callable[[], None]) -> R:
    """Run a call in a thread, and wait for its end also if the caller is cancelled, once or several times."""
    running = asyncio.get_running_loop().run_in_executor(None, copy_context().run, call)
    try:
        await asyncio.wait([running])
    except asyncio.CancelledError:
        stop()
        with CancelScope(shield=True):
            while not running.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([running])
        running.exception()  # nobody else looks at it
        raise
    return running.result()


def _store(
    transaction: ConnectionTransaction, connection: Any, tasks: Sequence[NewTask], client: Client
) -> list[Task] | None:
    with _turns.setdefault(connection, threading.RLock()):
        _check_transaction(connection)
        return _join(transaction, tasks, client)


def _join(transaction: ConnectionTransaction, tasks: Sequence[NewTask], client: Client) -> list[Task] | None:
    try:
        return _insert(transaction, tasks, client)
    finally:
        transaction.spoil_if_stopped()


def _insert(transaction: ConnectionTransaction, tasks: Sequence[NewTask], client: Client) -> list[Task] | None:
    joined = engines.shared(client.url).join(transaction)
    if joined is not None:
        with telemetry.sending(tasks) as sent:
            return joined.enqueue(sent)
    if engines.are_replaced():
        return None
    raise InvalidOption(
        f"connection=...: it is not on the database of the tasks, {engines.shown(client.url)}: leave it out"
    )


def _check_transaction(connection: Any) -> None:
    """Refuse a connection whose next statement would be committed at once, or whose answers come later."""
    pq = sys.modules["psycopg"].pq
    if connection.info.pipeline_status != pq.PipelineStatus.OFF:
        raise InvalidOption(
            "connection=...: it is in pipeline mode, where answers come later: add the task before or after the block "
            "`with connection.pipeline():`, in the same transaction"
        )
    if connection.autocommit and connection.info.transaction_status == pq.TransactionStatus.IDLE:
        raise InvalidOption(
            "connection=...: it is in autocommit mode, and no transaction is open: add the task inside of "
            "`with connection.transaction():`"
        )
