"""Calls that the tests of the PostgreSQL engine make, and what they wait for."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from afterwards.core.retry import Retry
from afterwards.core.settling import Settled, Succeeded, settle
from afterwards.core.task import NewTask, Task, task_id
from afterwards.engine import Claim
from afterwards.engines.postgres.io import schema
from servers.postgres import PostgresServer

LEASE = timedelta(minutes=10)
TIMEOUT = 30.0

WAITING = """
    SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted
"""


def new(**fields: Any) -> NewTask:
    return NewTask(**{"id": task_id(datetime.now(UTC), os.urandom(10)), "name": "greet", "arguments": "{}"} | fields)


def claim(limit: int = 10, **fields: Any) -> Claim:
    return Claim(**{"worker": "w", "limit": limit, "lease": LEASE, "names": frozenset({"greet"})} | fields)


def end(task: Task, outcome: Any = None) -> Settled:
    return settle(task, outcome or Succeeded(), Retry(0), worker="w", now=datetime.now(UTC), random=0.5)


@contextmanager
def tables(postgres: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """Make a database with our tables for the block, and yield a connection to it."""
    database = postgres.create_database()
    with postgres.connect(database) as connection:
        for statement in schema.statements(0, "public", create=False):
            connection.execute(statement)  # type: ignore[call-overload]
        yield connection
    postgres.drop_database(database)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, and fail if it takes too long."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def waiting_in(connection: psycopg.Connection[Any]) -> int:
    """Return how many transactions in a database wait for an advisory lock."""
    [count] = connection.execute(WAITING).fetchone() or ()
    return int(count)
