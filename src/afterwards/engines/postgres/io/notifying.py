"""Hints to the workers of other processes: a few notifications a second, and polling behind them."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from datetime import timedelta

import psycopg
from psycopg import sql

from afterwards.core.errors import EngineError
from afterwards.engines.postgres.io.connections import Connection, cut, discard
from afterwards.engines.postgres.io.transactions import PATIENCE, Server

SHORTEST, LONGEST = 0.004, 0.025
"""Seconds between two notifications of one process: more while hints come all the time. The server lets only one
transaction at a time send any."""

POLL = timedelta(seconds=0.5)
"""Time after which a waiting worker looks by itself if it gets no notifications."""

LONGEST_PAUSE = 5.0
"""Seconds between two attempts to listen, at most."""

CHECK_EVERY = 10.0
"""Seconds of silence after which the connection that listens is checked: it may have been lost without a word."""

NOTIFY = "SELECT pg_notify(%s, %s)"


class Notifier:
    """Send hints, and receive those of other processes."""

    def __init__(self, server: Server, wake_here: Callable[[], None]) -> None:
        self._server = server
        self._wake_here = wake_here
        self._token = os.urandom(8).hex()  # of this process: its own hints wake it without the server
        self._is_due = asyncio.Event()
        self.is_listening = False

    def hint(self) -> None:
        """Wake the workers of all processes. Called in the engine's thread."""
        self._wake_here()
        self._is_due.set()

    async def send(self) -> None:
        """Send the hints, as long as the engine is open. The first is sent at once, later ones together."""
        pause = SHORTEST
        while True:
            if not self._is_due.is_set():
                pause = SHORTEST
                await self._is_due.wait()
            self._is_due.clear()
            try:
                async with self._server.connections.lent() as connection:
                    await _answered(connection, NOTIFY, self._channel, self._token)
            except (EngineError, psycopg.Error):
                pass  # the workers look by themselves after a while
            await asyncio.sleep(pause)
            pause = min(LONGEST, 2 * pause)

    async def listen(self) -> None:
        """Receive hints, as long as the engine is open. Behind a pooler nobody can."""
        pause = 0.1
        while not self._server.connections.pooled:
            connection: Connection | None = None
            try:
                connection = await self._server.connections.connect()
                await connection.execute(f"LISTEN {sql.Identifier(self._channel).as_string(None)}")
                self.is_listening = True
                pause = 0.1
                self._wake_here()  # for hints that were missed
                while True:
                    async for one in connection.notifies(timeout=CHECK_EVERY):
                        if one.payload != self._token:
                            self._wake_here()
                    await _answered(connection, "SELECT 1")
            except (EngineError, psycopg.Error):
                pass
            finally:
                self.is_listening = False
                if connection is not None:
                    discard(connection)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    @property
    def _channel(self) -> str:
        return channel(str(self._server.schema))


async def _answered(connection: Connection, statement: str, *values: str) -> None:
    """Run a statement. If there is no answer within a few seconds, it ends with OperationalError."""
    timer = asyncio.get_running_loop().call_later(PATIENCE, cut, connection)
    try:
        await connection.execute(statement, values or None)
    finally:
        timer.cancel()


def channel(schema: str) -> str:
    """Return the name under which hints for the workers of a schema are sent."""
    return "afterwards_" + hashlib.sha256(schema.encode()).hexdigest()[:16]
