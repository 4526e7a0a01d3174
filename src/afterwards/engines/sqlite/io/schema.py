"""Open the file, make it if necessary, and migrate its tables to this version."""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from importlib import resources
from pathlib import Path

from afterwards.core.errors import EngineError
from afterwards.engines.sqlite.io.connection import BEGIN_WRITING, COMMIT, Connection, OwnConnection

APPLICATION_ID = 0x41667477  # "Aftw": by this, `file` recognises a file that holds only tasks
MAJOR = 1  # changes when an older version of this package can no longer work on the file
_SQL = "afterwards.engines.sqlite"
_STEPS = tuple(
    f"migrations/{step}"
    for step in (
        "001_tasks.sql",
        "002_set_aside.sql",
        "003_losses.sql",
        "004_behind.sql",
        "005_queued_since.sql",
        "006_moving.sql",
        "007_steering.sql",
        "008_dispatches.sql",
        "009_lanes.sql",
    )
)
VERSION = MAJOR * 1000 + len(_STEPS)

PRAGMAS = (
    "PRAGMA synchronous = FULL",  # a commit that was acknowledged survives a power cut
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -4000",  # 4 MB for each of two connections: the rows in use lie together
    "PRAGMA mmap_size = 0",  # the WAL-reset bug did the most harm to mapped pages
    "PRAGMA journal_size_limit = 67108864",
)
APPLE_PRAGMAS = ("PRAGMA fullfsync = 1", "PRAGMA checkpoint_fullfsync = 1")  # otherwise fsync stops at the disk's cache

MOST_PREPARED = 256
"""Statements that a connection keeps prepared."""

HAS_VERSION = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'afterwards_schema')"

GET_VERSION = "SELECT version FROM afterwards_schema"

SET_VERSION = "INSERT OR REPLACE INTO afterwards_schema (one, version) VALUES (1, ?)"

IS_EMPTY = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_master)"


def connect(path: Path, *, patience: timedelta) -> OwnConnection:
    """Open a file for writing. It is made, or migrated to this version, if necessary.

    Raises EngineError for a file that is not a database, or whose tables a later major version has made.
    """
    _create(path)
    connection = _open(path, patience)
    try:
        _check(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        for pragma in PRAGMAS + (APPLE_PRAGMAS if sys.platform == "darwin" else ()):
            connection.execute(pragma)
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path, *, patience: timedelta) -> OwnConnection:
    """Open a file that a writer of this process has opened before."""
    connection = _open(path, patience)
    for pragma in (*PRAGMAS, "PRAGMA query_only = 1"):
        connection.execute(pragma)
    return connection


def _create(path: Path) -> None:
    """Make the file readable by its owner only. SQLite gives the files beside it the same mode."""
    # An existing file is not touched: opening and closing it would drop all locks that this process has on it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _open(path: Path, patience: timedelta) -> OwnConnection:
    existing = f"{path.as_uri()}?mode=rw"  # otherwise a reader would make an empty file
    return sqlite3.connect(
        existing,
        uri=True,
        timeout=patience.total_seconds(),
        isolation_level=None,
        factory=OwnConnection,
        cached_statements=MOST_PREPARED,
    )


def prepare_joined(connection: Connection, path: Path) -> None:
    """Migrate our tables to this version in a transaction of another owner, if there is one.

    Raises EngineError for tables that a later major version has made.
    """
    version = _version(connection)
    _check_version(version, path)
    if version < VERSION:
        connection.execute("SAVEPOINT afterwards_schema")  # DDL does not begin a transaction in Python's sqlite3
        _apply_steps(connection)
        connection.execute("RELEASE afterwards_schema")


def _check(connection: OwnConnection, path: Path) -> None:
    """Refuse files that are not databases, and tables that a later version of this package has made."""
    try:
        version = _version(connection)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise EngineError(f"{path} is not an SQLite database, or is damaged: {error}") from error
    _check_version(version, path)


def _check_version(version: int, path: Path) -> None:
    if version // 1000 > MAJOR:
        raise EngineError(
            f"{path} was written by a later version of afterwards (schema {version // 1000}, "
            f"this version knows {MAJOR}): install that version here too"
        )


def _migrate(connection: OwnConnection) -> None:
    """Apply the steps that the file has not seen. Processes that start together take turns."""
    if _version(connection) >= VERSION:
        return
    connection.execute(BEGIN_WRITING)
    [empty] = connection.execute(IS_EMPTY).fetchone()
    _apply_steps(connection)
    if empty and _pragma(connection, "application_id") == 0:  # an application's database keeps its own id
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(COMMIT)


def _apply_steps(connection: Connection) -> None:
    done = _version(connection) % 1000
    for step in _STEPS[done:]:
        _run(connection, step)
    if done < len(_STEPS):
        connection.execute(SET_VERSION, (VERSION,))


def _version(connection: Connection) -> int:
    """Return the version of our tables, whatever else is in the file; 0 if there are none."""
    [found] = connection.execute(HAS_VERSION).fetchone()
    return int(connection.execute(GET_VERSION).fetchone()[0]) if found else 0


def _run(connection: Connection, script: str) -> None:
    """Run a script of this package, in the current transaction if there is one."""
    for statement in _statements(resources.files(_SQL).joinpath(script).read_text("utf-8")):
        connection.execute(statement)


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
