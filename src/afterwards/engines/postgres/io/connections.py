"""A few connections to the server, which operations borrow.

A pool of the driver's would hide why it cannot connect, and would wait where this one answers at once.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from weakref import WeakSet

import psycopg
from psycopg.pq import TransactionStatus

from afterwards.core.errors import EngineError, EngineUnavailable
from afterwards.engines.postgres import durability
from afterwards.engines.postgres.io.address import Address
from afterwards.engines.postgres.io.errors import translated_at_connecting

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

OLDEST = 130000
"""The oldest supported version of the server."""

MOST = 8
"""Connections of one process, apart from the one that listens."""

HELLO = f"""
SELECT pg_backend_pid(), pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
    current_setting('server_encoding'), {durability.COMMIT_LEVEL}
"""

# A process that stands still in the middle of a transaction must not keep its locks. And the statistics of a queue are
# always out of date: each statement has an index that fits, so the planner must not believe that a table is small.
# Single statements have no BEGIN that names the isolation level, and need no more than this one.
SETTINGS = {
    "default_transaction_isolation": "read committed",
    "statement_timeout": "10s",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "5s",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


class Connections:
    """Connections that are made when they are needed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: list[Connection] = []
        self._made: WeakSet[Connection] = WeakSet()  # also those in the hands of a call that was given up
        self._free = asyncio.Semaphore(MOST)
        self._is_closed = False
        self._is_first = True  # no connection could be made yet
        self._lent: dict[asyncio.Task[Any] | None, Connection] = {}
        self.pooled = address.pooled  # None until the first connection has found out

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Connection]:
        """Lend a connection. One that was left in the middle of something is closed."""
        async with self._free:
            connection = await self._take()
            borrower = asyncio.current_task()
            self._lent[borrower] = connection
            try:
                yield connection
            finally:
                del self._lent[borrower]
                self._give_back(connection)

    def cut_off(self, borrower: asyncio.Task[Any]) -> bool:
        """Cut the connection that a task has borrowed: what it waits for there fails at once. False if it has none."""
        connection = self._lent.get(borrower)
        if connection is not None:
            cut(connection)
        return connection is not None

    async def connect(self) -> Connection:
        """Make a connection. Raises EngineUnavailable or EngineError."""
        if self._is_closed:
            raise EngineUnavailable(f"{self._address.shown} is closed")
        try:
            connection: Connection = await psycopg.AsyncConnection.connect(
                **self._address.parameters, autocommit=True, prepare_threshold=None if self.pooled else 5
            )
        except (psycopg.Error, OSError, RuntimeError) as error:  # RuntimeError: no thread to look up a name
            raise translated_at_connecting(error, self._address.shown, is_first=self._is_first) from error
        self._is_first = False
        self._made.add(connection)
        try:
            await self._greet(connection)
        except psycopg.Error as error:
            discard(connection)
            raise translated_at_connecting(error, self._address.shown) from error
        except BaseException:
            discard(connection)
            raise
        return connection

    def forget_idle(self) -> None:
        """Close the connections that nobody uses: the server that they led to is gone."""
        idle, self._idle = self._idle, []
        for connection in idle:
            discard(connection)

    def close(self) -> None:
        """Close all connections, whoever uses them."""
        self._is_closed = True
        self.forget_idle()
        for connection in [*self._made]:
            discard(connection)

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return await self.connect()

    def _give_back(self, connection: Connection) -> None:
        if not connection.closed and connection.info.transaction_status != TransactionStatus.IDLE:
            discard(connection)
        if not connection.closed and not self._is_closed:
            self._idle.append(connection)
        else:
            discard(connection)

    async def _greet(self, connection: Connection) -> None:
        shown = self._address.shown
        if connection.info.server_version < OLDEST:
            version = connection.info.server_version // 10000
            raise EngineError(f"{shown}: PostgreSQL {version} is too old: {OLDEST // 10000} or newer is needed")
        answer = await connection.execute(HELLO)
        [(pid, is_standby, is_read_only, encoding, commit_level)] = await answer.fetchall()
        if is_standby:
            raise EngineUnavailable(
                f"{shown} is a standby, which cannot be written: give the address of the primary, or several hosts "
                "with target_session_attrs=read-write"
            )
        if is_read_only:
            raise EngineUnavailable(
                f"{shown} cannot be written: default_transaction_read_only is on, "
                "for the server, the database or the user: switch it off there"
            )
        if encoding != "UTF8":
            raise EngineError(f"{shown}: the database has the encoding {encoding}: create one with the encoding UTF8")
        durability.say_what_is_lost_with(commit_level)
        if self.pooled is None:  # a pooler makes up the process id with which a statement is cancelled
            self.pooled = pid != connection.info.backend_pid
        if self.pooled:
            connection.prepare_threshold = None
        else:
            await connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in SETTINGS.items()))


def cut(connection: Connection) -> None:
    """End a connection in such a way that whoever waits for an answer notices it."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as shared:
        shared.shutdown(socket.SHUT_RDWR)


def discard(connection: Connection) -> None:
    """Close a connection without waiting for anything."""
    with suppress(Exception):
        connection.pgconn.finish()
