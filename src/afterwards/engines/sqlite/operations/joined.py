"""Store tasks in a transaction that the application began and will commit, on the same file."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from logging import WARNING
from pathlib import Path
from typing import Any

from afterwards.core.task import NewTask, Task
from afterwards.engine import Answer, Transaction
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.io.schema import prepare_joined
from afterwards.engines.sqlite.operations import storing
from afterwards.telemetry import once

DATABASES = """
SELECT name, file, (SELECT synchronous FROM pragma_synchronous) FROM pragma_database_list
"""

FULL = 2
"""The lowest level of ``PRAGMA synchronous`` at which a commit in WAL mode survives a power cut."""


class Joined:
    """A transaction of the application on the file that also holds its tasks."""

    def __init__(self, transaction: Transaction, clock: Callable[[], datetime], announce: Callable[[], None]) -> None:
        self._connection = JoinedConnection(transaction)
        self._clock = clock
        self._announce = announce

    def prepare(self, path: Path) -> None:
        """Make sure that our tables exist, if nobody has opened the file yet."""
        prepare_joined(self._connection, path)

    def enqueue(self, tasks: Sequence[NewTask]) -> list[Task]:
        self._connection.begin(self._clock())
        stored = storing.enqueue_or_raise(self._connection, tasks)
        self._connection.flush()
        return stored

    def committed(self) -> None:
        if self._connection.queued:
            self._announce()


class JoinedConnection(Connection):
    """The application's connection, in the form that the operations of this engine need."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._changes = 0

    @property
    def total_changes(self) -> int:
        return self._changes

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> "Fetched":
        answer = self._transaction.execute(statement, values)
        self._changes += max(0, answer.changed)
        return Fetched(answer)

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> "Fetched":
        changed = sum(self._transaction.execute(statement, some).changed for some in values)
        self._changes += max(0, changed)
        return Fetched(Answer([], changed))


class Fetched:
    """A result with a cursor's methods. It is fetched completely at once: an open cursor would keep its locks."""

    def __init__(self, answer: Answer) -> None:
        self._rows = iter(answer.rows)
        self.rowcount = answer.changed

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows


def is_on(path: Path, transaction: Transaction) -> bool:
    """Return True if a transaction works on the file, whatever name its database was opened by."""
    if transaction.dialect != "sqlite":
        return False
    databases = {name: (file, level) for name, file, level in transaction.execute(DATABASES).rows}
    file, level = databases["main"]
    with suppress(OSError):  # a database in memory has no file
        if os.path.samefile(file, path):
            _say_what_is_lost_with(level)
            return True
    return False


def _say_what_is_lost_with(level: int) -> None:
    """Log once that a commit may return before it is on the disk."""
    if level < FULL:
        name = ("OFF", "NORMAL")[level]
        once(
            f"synchronous = {name}",
            WARNING,
            f"afterwards: tasks are stored with a session whose connection has `PRAGMA synchronous = {name}`: a power "
            "cut may lose what was acknowledged. Set `PRAGMA synchronous = FULL` where the application connects",
        )
