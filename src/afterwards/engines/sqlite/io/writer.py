"""The thread that writes. Operations that arrive during one commit share the next one."""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

from afterwards import telemetry
from afterwards.core.errors import EngineError, EngineUnavailable
from afterwards.engines.sqlite.io.connection import (
    BEGIN_WRITING,
    COMMIT,
    NEXT_DUE,
    ROLLBACK,
    Connection,
    OwnConnection,
)
from afterwards.engines.sqlite.io.errors import is_locked
from afterwards.engines.sqlite.io.file_holder import FileHolder, FilesChanged
from afterwards.engines.sqlite.io.operation import Operation
from afterwards.engines.sqlite.io.peers import WriteLock

DATA_VERSION = "PRAGMA data_version"

MOST_CHANGES = 3
"""How often an operation is tried again because files were deleted or replaced."""


class OperationFailed(Exception):
    """One of several operations in a transaction failed."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Writer(FileHolder):
    """Write many operations in one transaction, and notice the writes of other processes.

    ``wake_here`` wakes the waiting workers of this process. ``go_on`` makes the operation that continues the
    unfinished work of a transaction.
    """

    name = "writer"

    def __init__(
        self,
        path: Path,
        connect: Callable[[], OwnConnection],
        *,
        lock: WriteLock,
        clock: Callable[[], datetime],
        patience: timedelta,
        poll: timedelta,
        wake_all: Callable[[], None],
        wake_here: Callable[[], None],
        release: Callable[[], None],
        go_on: Callable[[], Operation[Any]],
    ) -> None:
        super().__init__(path, connect, lock=lock, wake_all=wake_all, release=release)
        self.next_due: int | None = None  # when the first scheduled task is due, in microseconds
        self.room_at: datetime | None = None  # when a rate that a claim found used up lets another task start
        self._clock = clock
        self._patience = patience.total_seconds()
        self._poll = poll.total_seconds()
        self._next_look = 0.0
        self._version = -1
        self._wake_here = wake_here
        self._go_on = go_on

    def _open(self) -> OwnConnection:
        self._version = -1
        return super()._open()

    def watch(self) -> None:
        super().watch()
        if self._lock.waited > self._patience:
            self._fail_all(EngineUnavailable(f"another process has been writing for {self._lock.waited:.1f} s"))

    def _perform(self, operations: Sequence[Operation[Any]], *, careful: bool = False, changes: int = 0) -> None:
        """Run operations in one transaction. If one fails even with care, each gets its own, so that it fails alone."""
        try:
            self._together(operations, careful=careful)
        except FilesChanged as error:
            self._disconnect()
            if changes < MOST_CHANGES:
                self._perform(operations, careful=careful, changes=changes + 1)
            else:
                changed = EngineUnavailable(f"{self._path} is deleted or replaced repeatedly")
                changed.__cause__ = error
                self._failed(operations, changed)
        except OperationFailed as failed:
            if not careful or self._accepts_odd_texts(failed.error):
                self._perform(operations, careful=True)
            elif len(operations) == 1:
                self._failed(operations, failed.error)
            else:
                for operation in operations:
                    self._perform([operation], careful=True)
        except Exception as error:  # nothing can be written now
            if self._accepts_odd_texts(error):
                self._perform(operations, careful=careful)
                return
            self._failed(self._try_again(operations) if is_locked(error) else operations, error)

    def _accepts_odd_texts(self, error: Exception) -> bool:
        """Return True if the operations can be tried again, because text that is not UTF-8 is now accepted."""
        return self._connection is not None and self._connection.accept_odd_texts(error)

    def _try_again(self, operations: Sequence[Operation[Any]]) -> list[Operation[Any]]:
        """Let operations that may wait longer wait on, with those that came meanwhile. Returns the others."""
        latest = time.monotonic() - self._patience
        for one in operations:
            one.waits_on = one.asked_at > latest
        return [one for one in operations if not one.waits_on]

    def _together(self, operations: Sequence[Operation[Any]], *, careful: bool) -> None:
        if not self._is_any_needed(operations):
            return
        connection = self._connected()
        with self._transaction(connection, careful=careful):
            living = (one for one in operations if one.error is None)  # some gave up meanwhile
            wanted = sorted(living, key=attrgetter("turn"))
            results = _results(connection, wanted)
            due = connection.next_due()
        for operation, result in zip(wanted, results, strict=True):
            operation.result, operation.error = result, None
        self._after_commit(connection, due)

    def _is_any_needed(self, operations: Sequence[Operation[Any]]) -> bool:
        """Ask the operations that may be needless, if no other one needs a transaction."""
        if not all(operation.may_be_needless for operation in operations):
            return True
        self._disconnect_if_changed()
        connection = self._connected()
        connection.begin(self._clock())
        needed = any(operation.is_needed(connection) for operation in operations)
        self._note_room(connection)
        return needed

    @contextmanager
    def _transaction(self, connection: OwnConnection, *, careful: bool) -> Iterator[None]:
        with self._lock:
            self._check_files()
            connection.execute(BEGIN_WRITING)
            try:
                connection.begin(self._clock(), careful=careful)
                yield
                connection.execute(COMMIT)
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute(ROLLBACK)
                raise

    def _after_commit(self, connection: Connection, due: int | None) -> None:
        self._note_room(connection)
        sooner = due is not None and (self.next_due is None or due < self.next_due)
        self.next_due = due
        if connection.queued or sooner:
            self._wake_all()
        if connection.left_behind:  # in between other operations, and after them
            self.submit([self._go_on()])
        for one in connection.set_aside:
            telemetry.set_aside(one.id, one.name, one.reason)

    def _note_room(self, connection: Connection) -> None:
        if connection.room_at is not None:
            self.room_at, connection.room_at = connection.room_at, None

    # Handle changes by other processes.

    def _pause(self) -> float:
        return max(0.0, self._next_look - time.monotonic())

    def _look_around(self, *, nudged: bool) -> None:
        if nudged or time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + self._poll
            with suppress(sqlite3.Error):  # callers are told of errors; here nobody has called
                self._look()

    def _look(self) -> None:
        if self._connection is None:
            return
        if self._files is not None and self._files.have_changed():
            with suppress(OSError, EngineError):
                self._disconnect()
                self._connected()
            return
        [version] = self._connection.execute(DATA_VERSION).fetchone()
        if version != self._version:
            self._version = version
            [self.next_due] = self._connection.execute(NEXT_DUE).fetchone()
            self._wake_here()


def _results(connection: Connection, operations: Sequence[Operation[Any]]) -> list[Any]:
    results = []
    try:
        for operation in operations:
            if not operation.only_adds:
                connection.flush()
            results.append(operation.run(connection))
        connection.flush()
        connection.store_ends()
    except Exception as error:  # whatever it is, it concerns one operation and no other
        raise OperationFailed(error) from error
    return results
