"""One connection to the file, and its schema."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, TypeVar

from afterwards.core.tallies import Ends, added, step_of
from afterwards.engine import Paused
from afterwards.engines.sqlite import placeholders, rows, shapes
from afterwards.engines.sqlite.columns import LIMITED, QUEUED
from afterwards.engines.sqlite.shapes import LATEST

BEGIN_WRITING = "BEGIN IMMEDIATE"  # DEFERRED fails at once, without waiting, when it has read before it writes
BEGIN_READING = "BEGIN"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"

# Usually there is nothing, and then no row: the driver takes one step for each row, and one to see the end.
LOOK = f"""
    SELECT next_due, overdue, queued, limited, paused, waiting FROM (
        SELECT
            (SELECT min(run_at) FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= {LATEST}) AS next_due,
            EXISTS (
                SELECT 1 FROM afterwards_tasks
                WHERE expires_at IS NOT NULL AND finished_at IS NULL AND expires_at <= ?
                    AND state NOT IN ('running', 'unreadable')
            ) AS overdue,
            EXISTS (SELECT 1 FROM afterwards_tasks WHERE {QUEUED}) AS queued,
            EXISTS (SELECT 1 FROM afterwards_tasks WHERE {LIMITED}) AS limited,
            EXISTS (SELECT 1 FROM afterwards_paused) AS paused,
            EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'waiting') AS waiting
    )
    WHERE next_due IS NOT NULL OR overdue OR queued OR limited OR paused OR waiting
"""

NEXT_DUE = f"SELECT min(run_at) FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= {LATEST}"

PAUSED = "SELECT kind, name FROM afterwards_paused"

ADD_TALLY = """
    ON CONFLICT (at) DO UPDATE SET
        succeeded = succeeded + excluded.succeeded, failed = failed + excluded.failed,
        retried = retried + excluded.retried
"""

TALLY = f"INSERT INTO afterwards_tallies (at, succeeded, failed, retried) VALUES (?, ?, ?, ?) {ADD_TALLY}"

MOST_ROWS = 32
"""Rows that one statement inserts. Each number of rows is a statement that is prepared once."""

MOST_VALUES = 999
"""Values that old versions of SQLite allow in one statement."""

T = TypeVar("T")

NOT_PAUSED = Paused()

NO_ENDS = Ends()


class Aside(NamedTuple):
    """A task that was set aside because its row cannot be read."""

    id: str
    name: str
    reason: str


class Look(NamedTuple):
    """The work that a look at the tasks found."""

    next_due: int | None = None  # when the first scheduled task is due, in microseconds
    due: bool = False  # its time has come
    overdue: bool = False  # something has expired
    queued: bool = False  # without a limit
    limited: bool = False  # queued, with a limit
    paused: bool = False  # whether any queue or function is paused
    waiting: bool = False  # whether any task waits for its predecessor


NOTHING = Look()
NO_ROW = (None, 0, 0, 0, 0, 0)


class Cursor(Protocol):
    """The answer to a statement."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection:
    """A connection, ours or the application's, with the state that the operations of one transaction share."""

    now: datetime
    instant: int  # the same in microseconds
    careful: bool  # an earlier try has failed: a row may exist already
    queued: bool  # tasks can be claimed that could not be before
    idle_for: object  # the claim that found nothing, as long as nothing has been queued since
    unwritten: list[tuple[tuple[str, ...], list[Any]]]  # tasks to insert, in this order: columns and values
    decided: int  # tasks behind others that this transaction has decided on
    left_behind: bool  # more of them are noted, for later transactions
    set_aside: list[Aside]  # by this transaction
    ends: Ends  # of attempts, in this transaction
    odd_texts = False  # some text in the file is not UTF-8
    odd_lanes = False  # a queued task has a queue, a name or a limit key that is not text
    room_at: datetime | None = None  # when a used-up rate lets another task start
    _look: Look = NOTHING
    _looked_at: int = -1  # the total of changes up to which the look is valid
    _paused: Paused | None = None

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
        self.ends = NO_ENDS
        self._looked_at = -1
        self._paused = None

    def look(self) -> Look:
        """Return the work that there is now. It is looked up again after this connection made a relevant change."""
        if self._looked_at != self.total_changes:
            self._look = self._found()
            self._looked_at = self.total_changes
        return self._look

    def next_due(self) -> int | None:
        """Return when the first scheduled task is due, without a whole look, which takes several times as long."""
        if self._looked_at == self.total_changes:
            return self._look.next_due
        due: int | None = self.execute(NEXT_DUE).fetchone()[0]
        return due

    def _found(self) -> Look:
        """Look by one statement: each releases the interpreter, which other threads want."""
        row = self.execute(LOOK, (self.instant,)).fetchone()
        next_due, *found = row or NO_ROW
        look = Look(next_due, next_due is not None and next_due <= self.instant, *map(bool, found))
        if not look.paused:
            self._paused = NOT_PAUSED
        return look

    def execute_unseen(self, statement: str, values: Sequence[Any] = (), /) -> Cursor:
        """Execute a statement that does not change the result of a look."""
        holds = self._looked_at == self.total_changes
        done = self.execute(statement, values)
        if holds:
            self._looked_at = self.total_changes
        return done

    @property
    def paused(self) -> Paused:
        """Return the paused queues and functions, looked up once in a transaction."""
        if self._paused is None:
            found = self.execute(PAUSED).fetchall()
            self._paused = NOT_PAUSED
            if found:
                texts = [(kind, name) for kind, name in found if shapes.is_text(name)]
                queues = frozenset(name for kind, name in texts if kind == "queue")
                self._paused = Paused(queues=queues, names=frozenset(name for kind, name in texts if kind == "name"))
        return self._paused

    def forget_paused(self) -> None:
        self._paused = None

    def flush(self) -> None:
        """Insert the unwritten tasks, many rows by one statement, which takes half the time."""
        if not self.unwritten:
            return
        unwritten, self.unwritten = self.unwritten, []
        for columns, group in groupby(unwritten, itemgetter(0)):
            values = [value for _, value in group]
            insert = self.execute_unseen if rows.is_leased(columns) else self.execute
            for some in in_pieces(values, MOST_VALUES // len(columns)):
                insert(placeholders.insert(columns, len(some)), [*chain.from_iterable(some)])

    def note_ends(self, ends: Ends) -> None:
        """Count ended attempts. The transaction's last statement stores the numbers of all its operations."""
        self.ends = added(self.ends, ends)

    def store_ends(self) -> None:
        if self.ends:
            self.execute_unseen(TALLY, (rows.from_instant(step_of(self.now)), *self.ends))

    def after(self, span: timedelta) -> int:
        """Return the instant that is a span after now, in microseconds."""
        return rows.from_instant(self.now + span)

    @property
    def total_changes(self) -> int:
        """Return the number of rows that this connection has ever changed."""
        raise NotImplementedError

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor:
        raise NotImplementedError

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> Cursor:
        raise NotImplementedError


class OwnConnection(sqlite3.Connection, Connection):
    """A connection that this package has opened."""

    def accept_odd_texts(self, error: Exception) -> bool:
        """If text that is not UTF-8 caused the error, read such text from now on. Otherwise return False.

        It is not on from the start, because it takes a Python call for each text.
        """
        if self.odd_texts or not isinstance(error, sqlite3.OperationalError) or "decode to UTF-8" not in str(error):
            return False
        self.odd_texts = True
        self.text_factory = shapes.decoded
        return True


def in_pieces(values: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Cut the values into as few pieces as possible, each small enough for one insert."""
    size = min(MOST_ROWS, most)
    return (values[start : start + size] for start in range(0, len(values), size))
