"""Make the tables, and migrate them to this version."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import LockNotAvailable

from afterwards.core.errors import EngineError
from afterwards.engines.postgres.io.address import Address
from afterwards.engines.postgres.io.connections import Connection
from afterwards.engines.postgres.io.errors import translated

MAJOR = 1  # changes when an older version of this package can no longer work on the tables
_PACKAGE = "afterwards.engines.postgres"
STEPS = ("001_tasks.sql", "002_moving.sql", "003_steering.sql", "004_dispatching.sql")
VERSION = MAJOR * 1000 + len(STEPS)

IDENTITY = """
    SELECT (SELECT system_identifier::text FROM pg_control_system()), oid::bigint
    FROM pg_database WHERE datname = current_database()
"""

Identity = tuple[Any, ...]
"""A database, whatever host name and user it is reached by."""

FIRST_SCHEMA = "SELECT current_schema()"

# A transaction of the application may have an old snapshot: the functions also see what was made after it. But they may
# ask a cache that is out of date, and the server brings that up to date when a statement names a table.
HAS_SCHEMA = """
    SELECT to_regnamespace(quote_ident(name)) IS NOT NULL OR EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = name)
    FROM (SELECT %s::text AS name) AS wanted
"""

HAS_VERSION = """
    SELECT to_regclass(quote_ident(name) || '.afterwards_schema') IS NOT NULL OR EXISTS (
        SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = name AND c.relname = 'afterwards_schema'
    )
    FROM (SELECT %s::text AS name) AS wanted
"""

GET_VERSION = "SELECT version FROM afterwards_schema"

SET_VERSION = """
    INSERT INTO afterwards_schema (version) VALUES (%s) ON CONFLICT (one) DO UPDATE SET version = excluded.version
"""

LONGEST_LOCK = "500ms"
"""The time for which a migration waits for a table at once."""

BETWEEN_TRIES = 0.5
"""Seconds in which those that have queued behind a migration get their turn."""

TAKE_TURNS = "SELECT pg_advisory_xact_lock(hashtextextended('afterwards:migrate', 0))"


_TABLE = re.compile(
    r"\bafterwards_(tasks|failures|logs|aliases|starts|paused|files|chunks|schedules|workers|behind|tallies|schema"
    r"|outgoing|taken_over|dispatches)\b"
)

_COMMENT = re.compile(r"--.*")


@lru_cache(1024)
def qualified(statement: str, schema: str) -> str:
    """Return a statement whose tables are in a schema. No search path is set: behind a pooler it would be another's."""
    quoted = sql.Identifier(schema).as_string(None)
    text = _TABLE.sub(lambda found: f"{quoted}.{found[0]}", statement)
    return text.replace("{schema}", sql.Literal(schema).as_string(None) + "::text")


async def prepare(connection: Connection, address: Address) -> tuple[str, Identity]:
    """Make or migrate the tables if necessary. Returns the name of their schema, and the database.

    Raises EngineError.
    """
    try:
        schema = await schema_of(connection, address)
        version = await version_of(connection, schema)
        check(version, address)
        if version < VERSION:
            await migrate(connection, address, schema)
        return schema, tuple(await _row(connection, IDENTITY))
    except psycopg.Error as error:
        raise _explained(error, address) from error


async def pending(connection: Connection, address: Address) -> list[str]:
    """Return the statements that the tables have not seen. Raises EngineError."""
    try:
        schema = await schema_of(connection, address)
        version = await version_of(connection, schema)
        check(version, address)
        [exists] = await _row(connection, HAS_SCHEMA, schema)
        return [*statements(version, schema, create=not exists)] if version < VERSION else []
    except psycopg.Error as error:
        raise _explained(error, address) from error


async def schema_of(connection: Connection, address: Address) -> str:
    """Return the name of the schema that the tables are in."""
    [found] = await _row(connection, FIRST_SCHEMA)
    return named(address, found)


def named(address: Address, first: str | None) -> str:
    """Return the name of the schema, given the first one in the user's search path. Raises EngineError."""
    found = address.schema or first
    if found is None:
        raise EngineError(
            f"{address.shown}: no schema of the user's search path exists: add ?schema= and a name to the URL"
        )
    return found


async def version_of(connection: Connection, schema: str) -> int:
    """Return the version of our tables; 0 if there are none."""
    [found] = await _row(connection, HAS_VERSION, schema)
    if not found:
        return 0
    row = await _row(connection, qualified(GET_VERSION, schema))
    return int(row[0]) if row else 0


async def migrate(connection: Connection, address: Address, schema: str) -> None:
    """Apply the steps that the tables have not seen. Processes that start together take turns.

    Processes of the version before work on meanwhile. Their calls queue behind a step that waits for a table, so it
    waits for a moment only, and then leaves them as long.
    """
    while True:
        try:
            async with connection.transaction():
                await _migrate(connection, address, schema)
            return
        except LockNotAvailable:
            await asyncio.sleep(BETWEEN_TRIES)


async def _migrate(connection: Connection, address: Address, schema: str) -> None:
    await connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")  # it must see what others have just made
    await connection.execute("SET LOCAL lock_timeout = 0")
    await connection.execute("SET LOCAL statement_timeout = 0")
    await connection.execute(TAKE_TURNS)
    version = await version_of(connection, schema)
    check(version, address)
    [exists] = await _row(connection, HAS_SCHEMA, schema)
    await connection.execute(f"SET LOCAL lock_timeout = '{LONGEST_LOCK}'")
    for statement in statements(version, schema, create=not exists):
        await connection.execute(statement)


def statements(version: int, schema: str, *, create: bool) -> Iterator[str]:
    """Yield the SQL that migrates tables of this version; ``create`` also makes the schema."""
    if create:
        yield sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)).as_string(None)
    done = version % 1000
    for step in STEPS[done:]:
        script = resources.files(_PACKAGE).joinpath("migrations", step).read_text("utf-8")
        for statement in _COMMENT.sub("", script).split(";"):
            if statement.strip():
                yield qualified(statement.strip(), schema)
    if done < len(STEPS):
        yield qualified(SET_VERSION.replace("%s", str(VERSION)), schema).strip()


def check(version: int, address: Address) -> None:
    if version // 1000 > MAJOR:
        raise EngineError(
            f"{address.shown}: its tables were made by a later version of afterwards (schema {version // 1000}, "
            f"this version knows {MAJOR}): install that version here too"
        )


def _explained(error: psycopg.Error, address: Address) -> Exception:
    if error.sqlstate == "42501":
        ours = EngineError(
            f"{address.shown}: the user may not make or use the tables ({str(error).strip().partition(chr(10))[0]}): "
            "GRANT CREATE, USAGE ON SCHEMA to it (for a new schema CREATE ON DATABASE), or let somebody who may run "
            "what `afterwards migrate --sql` prints, and then GRANT USAGE ON SCHEMA, and SELECT, INSERT, UPDATE, "
            "DELETE ON ALL TABLES IN SCHEMA to it"
        )
        ours.__cause__ = error
        return ours
    return translated(error, address.shown)


async def _row(connection: Connection, statement: str, *values: Any) -> Sequence[Any]:
    cursor = await connection.execute(statement, values or None)
    return await cursor.fetchone() or ()
