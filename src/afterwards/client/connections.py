"""Store tasks in the open transaction of a plain psycopg connection: they commit or roll back with it."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from afterwards import engines, telemetry
from afterwards.client.client import Client
from afterwards.core.errors import InvalidOption
from afterwards.core.task import NewTask, Task
from afterwards.engine import Answer

Execute = Callable[[str, Sequence[Any]], Answer]


class ConnectionTransaction:
    """The open transaction of a connection, for an engine to join."""

    dialect = "postgresql"

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Answer:
        return self._execute(statement, values)


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
    _check_transaction(connection)

    def execute(statement: str, values: Sequence[Any]) -> Answer:
        with connection.cursor(row_factory=_tuples()) as cursor:
            cursor.execute(statement, tuple(values) or None)
            return Answer(cursor.fetchall() if cursor.description else [], cursor.rowcount)

    return _join(execute, tasks, client)


async def store_async(connection: Any, tasks: Sequence[NewTask], client: Client) -> list[Task] | None:
    """Insert tasks as ``store`` does, on either kind of connection, without blocking the event loop."""
    if not is_async(connection):
        return await asyncio.to_thread(store, connection, tasks, client)
    _check_transaction(connection)
    loop = asyncio.get_running_loop()

    def execute(statement: str, values: Sequence[Any]) -> Answer:
        return _result(_execute_async(connection, statement, values), loop)

    return await asyncio.to_thread(_join, execute, tasks, client)


def _result(call: Coroutine[Any, Any, Answer], loop: asyncio.AbstractEventLoop) -> Answer:
    return asyncio.run_coroutine_threadsafe(call, loop).result()


async def _execute_async(connection: Any, statement: str, values: Sequence[Any]) -> Answer:
    async with connection.cursor(row_factory=_tuples()) as cursor:
        await cursor.execute(statement, tuple(values) or None)
        return Answer(await cursor.fetchall() if cursor.description else [], cursor.rowcount)


def _tuples() -> Any:
    return sys.modules["psycopg"].rows.tuple_row


def _join(execute: Execute, tasks: Sequence[NewTask], client: Client) -> list[Task] | None:
    joined = engines.shared(client.url).join(ConnectionTransaction(execute))
    if joined is not None:
        with telemetry.sending(tasks) as sent:
            return joined.enqueue(sent)
    if engines.are_replaced():
        return None
    raise InvalidOption(
        f"connection=...: it is not on the database of the tasks, {engines.shown(client.url)}: leave it out"
    )


def _check_transaction(connection: Any) -> None:
    """Refuse a connection whose next statement would be committed at once."""
    idle = connection.info.transaction_status == sys.modules["psycopg"].pq.TransactionStatus.IDLE
    if connection.autocommit and idle:
        raise InvalidOption(
            "connection=...: it is in autocommit mode, and no transaction is open: add the task inside of "
            "`with connection.transaction():`"
        )
