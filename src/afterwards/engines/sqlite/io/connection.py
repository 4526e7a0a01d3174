"""One connection to the file, and its schema."""

import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from importlib import resources
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from afterwards.core.errors import EngineError
from afterwards.engine import Paused
from afterwards.engines.sqlite import rows, shapes, statements

APPLICATION_ID = 0x41667477  # "Aftw": what `file` knows a file by that has nothing but tasks
MAJOR = 1  # changes when an older version of this package could no longer work on the file
_SQL = "afterwards.engines.sqlite"
_STEPS = tuple(
    f"migrations/{step}" for step in ("001_tasks.sql", "002_set_aside.sql", "003_losses.sql", "004_behind.sql")
)
VERSION = MAJOR * 1000 + len(_STEPS)

PRAGMAS = (
    "PRAGMA synchronous = FULL",  # a commit that was acknowledged survives a power cut
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -4000",  # 4 MB for each of two connections: what is worked on lies together
    "PRAGMA mmap_size = 0",  # mapped pages are where the WAL-reset bug did the most harm
    "PRAGMA journal_size_limit = 67108864",
)
APPLE_PRAGMAS = ("PRAGMA fullfsync = 1", "PRAGMA checkpoint_fullfsync = 1")  # else fsync stops at the disk's cache

MOST_ROWS = 32
"""Rows that one statement inserts. Each number of rows is a statement that is prepared once."""

MOST_VALUES = 999
"""Values that old versions of SQLite allow in one statement."""

MOST_PREPARED = 256
"""Statements that a connection keeps prepared."""

T = TypeVar("T")

NOT_PAUSED = Paused()


class Aside(NamedTuple):
    """A task that was set aside because its row cannot be read."""

    id: str
    name: str
    reason: str


class Look(NamedTuple):
    """What a look at the tasks found."""

    next_due: int | None = None  # when the first scheduled task is due, in microseconds
    due: bool = False  # its time has come
    overdue: bool = False  # something has expired
    queued: bool = False  # without a limit
    limited: bool = False  # queued, with a limit
    paused: bool = False  # anything is
    waiting: bool = False  # for a task before it


NOTHING = Look()
NO_ROW = (None, 0, 0, 0, 0, 0)


class Cursor(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection:
    """A connection, whoever's it is, with what the operations of one transaction share."""

    now: datetime
    instant: int  # the same in microseconds
    careful: bool  # something went wrong when this was tried before: a row may exist already
    queued: bool  # something can be claimed that could not be before
    idle_for: object  # the claim for which nothing could be found, as long as nothing is queued since
    unwritten: list[tuple[tuple[str, ...], list[Any]]]  # tasks to insert, in this order: columns and values
    decided: int  # tasks behind others, in this transaction
    left_behind: bool  # more of them are noted, for the transactions that come
    set_aside: list[Aside]  # by this transaction
    odd_texts = False  # some text in the file is no UTF-8
    odd_lanes = False  # something queued has a queue, a name or a limit key that is no text
    room_at: datetime | None = None  # when a rate that was used up lets another task start
    _look: Look = NOTHING
    _looked_at: int = -1  # the total of changes up to which the look holds
    _paused: Paused | None = None
    _ahead: tuple[timedelta, datetime] | None = None

    def begin(self, now: datetime, *, careful: bool = False) -> None:
        self.now = now
        self.instant = rows.from_instant(now)
        self.careful = careful
        self.queued = False
        self.idle_for = None
        self.unwritten = []
        self.decided = 0
        self.left_behind = False
        self.set_aside = []
        self._looked_at = -1
        self._paused = None
        self._ahead = None

    def look(self) -> Look:
        """What there is to do now; looked up again when this connection has changed anything that may matter."""
        if self._looked_at != self.total_changes:
            self._look = self._found()
            self._looked_at = self.total_changes
        return self._look

    def _found(self) -> Look:
        """Look by one statement: each lets go of the interpreter, which others want."""
        row = self.execute(statements.LOOK, (self.instant,)).fetchone()
        next_due, *found = row or NO_ROW
        look = Look(next_due, next_due is not None and next_due <= self.instant, *map(bool, found))
        if not look.paused:
            self._paused = NOT_PAUSED
        return look

    def execute_unseen(self, statement: str, values: Sequence[Any] = (), /) -> Cursor:
        """Execute a statement that changes nothing of what a look finds."""
        holds = self._looked_at == self.total_changes
        done = self.execute(statement, values)
        if holds:
            self._looked_at = self.total_changes
        return done

    @property
    def paused(self) -> Paused:
        """What nobody may begin now; looked up once in a transaction."""
        if self._paused is None:
            found = self.execute(statements.PAUSED).fetchall()
            self._paused = NOT_PAUSED
            if found:
                texts = [(kind, name) for kind, name in found if shapes.is_text(name)]
                queues = frozenset(name for kind, name in texts if kind == "queue")
                self._paused = Paused(queues=queues, names=frozenset(name for kind, name in texts if kind == "name"))
        return self._paused

    def forget_paused(self) -> None:
        self._paused = None

    def flush(self) -> None:
        """Insert what is to be inserted, many rows by one statement, which takes half the time."""
        if not self.unwritten:
            return
        unwritten, self.unwritten = self.unwritten, []
        for columns, group in groupby(unwritten, itemgetter(0)):
            values = [value for _, value in group]
            insert = self.execute_unseen if rows.is_leased(columns) else self.execute
            for some in in_pieces(values, MOST_VALUES // len(columns)):
                insert(statements.insert(columns, len(some)), [*chain.from_iterable(some)])

    def ahead(self, span: timedelta) -> datetime:
        """So long after now: one object for all that ask for the same."""
        if self._ahead is None or self._ahead[0] != span:
            self._ahead = span, self.now + span
        return self._ahead[1]

    def after(self, span: timedelta) -> int:
        """The instant so long after now."""
        return rows.from_instant(self.now + span)

    @property
    def total_changes(self) -> int:
        """The number of rows that this connection has ever changed."""
        raise NotImplementedError

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor:
        raise NotImplementedError

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> Cursor:
        raise NotImplementedError


class OwnConnection(sqlite3.Connection, Connection):
    """A connection that this package has opened."""

    def accept_odd_texts(self, error: Exception) -> bool:
        """Read text that is no UTF-8 from now on, if that was the error. Returns False if it was another one.

        Not from the beginning, for it takes a call of Python for each text.
        """
        if self.odd_texts or not isinstance(error, sqlite3.OperationalError) or "decode to UTF-8" not in str(error):
            return False
        self.odd_texts = True
        self.text_factory = shapes.decoded
        return True


def in_pieces(values: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Cut into as few pieces as one statement each can insert."""
    size = min(MOST_ROWS, most)
    return (values[start : start + size] for start in range(0, len(values), size))


def connect(path: Path, *, patience: timedelta) -> OwnConnection:
    """Open a file for writing; it is made, or brought to this version, if need be.

    Raises EngineError for a file that is no database, or whose tables a later major version has made.
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
    """Make the file for its owner's eyes only; the files that SQLite puts beside it follow it in that."""
    # An existing file is not touched: to open and close it would drop all locks that this process has on it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _open(path: Path, patience: timedelta) -> OwnConnection:
    existing = f"{path.as_uri()}?mode=rw"  # else a reader would make a file that has nothing in it
    return sqlite3.connect(
        existing,
        uri=True,
        timeout=patience.total_seconds(),
        isolation_level=None,
        factory=OwnConnection,
        cached_statements=MOST_PREPARED,
    )


def prepare_joined(connection: Connection, path: Path) -> None:
    """Bring our tables to this version in a transaction of somebody else's, if there is one.

    Raises EngineError for tables that a later major version has made.
    """
    version = _version(connection)
    _check_version(version, path)
    if version < VERSION:
        connection.execute("SAVEPOINT afterwards_schema")  # DDL does not begin a transaction where Python does it
        _apply_steps(connection)
        connection.execute("RELEASE afterwards_schema")


def _check(connection: OwnConnection, path: Path) -> None:
    """Refuse what is no database, and tables that a later version of this package has made."""
    try:
        version = _version(connection)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise EngineError(f"{path} is not an SQLite database, or a damaged one: {error}") from error
    _check_version(version, path)


def _check_version(version: int, path: Path) -> None:
    if version // 1000 > MAJOR:
        raise EngineError(
            f"{path} was written by a later version of afterwards (schema {version // 1000}, "
            f"this version knows {MAJOR}): install that version here too"
        )


def _migrate(connection: OwnConnection) -> None:
    """Apply the steps that the file has not seen; processes that start together take turns."""
    if _version(connection) >= VERSION:
        return
    connection.execute(statements.BEGIN_WRITING)
    [empty] = connection.execute(statements.IS_EMPTY).fetchone()
    _apply_steps(connection)
    if empty and _pragma(connection, "application_id") == 0:  # an application's database keeps its own
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(statements.COMMIT)


def _apply_steps(connection: Connection) -> None:
    done = _version(connection) % 1000
    for step in _STEPS[done:]:
        _run(connection, step)
    if done < len(_STEPS):
        connection.execute(statements.SET_VERSION, (VERSION,))


def _version(connection: Connection) -> int:
    """Of our tables, whatever else is in the file; 0 if there are none."""
    [found] = connection.execute(statements.HAS_VERSION).fetchone()
    return int(connection.execute(statements.GET_VERSION).fetchone()[0]) if found else 0


def _run(connection: Connection, script: str) -> None:
    """Run a script of this package, in whatever transaction there is."""
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
