"""The thread that writes. Operations that arrive during one commit share the next one."""

import os
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
from afterwards.engines.sqlite.io.connection import BEGIN_WRITING, COMMIT, ROLLBACK, Connection, OwnConnection
from afterwards.engines.sqlite.io.errors import is_locked
from afterwards.engines.sqlite.io.file_identity import Identities, identities, identity, uses_deleted_index
from afterwards.engines.sqlite.io.file_locks import Hold, in_use, kept
from afterwards.engines.sqlite.io.operation import Operation
from afterwards.engines.sqlite.io.peers import WriteLock
from afterwards.engines.sqlite.io.thread import ConnectionThread
from afterwards.engines.sqlite.shapes import LATEST
from afterwards.telemetry import log

DATA_VERSION = "PRAGMA data_version"

NEXT_DUE = f"SELECT min(run_at) FROM afterwards_tasks WHERE state = 'scheduled' AND run_at <= {LATEST}"

LONGEST_RESCUE = 2.0
"""Seconds that an open waits for another process to write back a deleted log that it still has open."""

MOST_CHANGES = 3
"""How often an operation is tried again because files were deleted or replaced."""


class FilesChanged(Exception):
    """The file, its log or its index was deleted or replaced while this process had it open."""


class OperationFailed(Exception):
    """One of several operations in a transaction failed."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Writer(ConnectionThread):
    """Write many operations in one transaction, and notice the writes of other processes.

    ``wake_all`` wakes the waiting workers of all processes, ``wake_here`` those of this one. ``release`` has the reader
    close a connection to files that were deleted. ``go_on`` makes the operation that continues the unfinished work of a
    transaction.
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
        super().__init__(path, connect)
        self.next_due: int | None = None  # when the first scheduled task is due, in microseconds
        self.room_at: datetime | None = None  # when a rate that a claim found used up lets another task start
        self._lock = lock
        self._clock = clock
        self._patience = patience.total_seconds()
        self._poll = poll.total_seconds()
        self._next_look = 0.0
        self._version = -1
        self._wake_all = wake_all
        self._wake_here = wake_here
        self._release = release
        self._go_on = go_on
        self._hold = Hold()

    def _open(self) -> OwnConnection:
        self._lock.open()
        self._version = -1
        until = time.monotonic() + LONGEST_RESCUE
        while (opened := self._opened(wait=time.monotonic() < until)) is None:
            self._wake_all()  # a process that has the deleted log open writes it back
            self._release()
            time.sleep(0.02)
        return opened

    def _opened(self, *, wait: bool) -> OwnConnection | None:
        """Open the file and hold it.

        With ``wait``, return None if others use the file and its log is missing, or if another connection of this
        process has a deleted index. Without it, the second raises EngineUnavailable.
        """
        with self._lock:  # also for connections that only read first: the first one repairs a log that a crash has left
            if wait and identities(self._name).wal is None and in_use(self._path):
                return None
            connection = super()._open()
            try:
                if not uses_deleted_index(self._name):
                    self._hold.take(self._path)
                    return connection
                with kept(self._path):
                    connection.close()
            except BaseException:
                connection.close()
                raise
        if wait:
            return None
        raise EngineUnavailable(
            f"{self._path}-shm was deleted, and a connection in this process still uses it: other processes would not "
            "see what is stored; close that connection, or start this process again"
        )

    def _disconnect(self) -> None:
        with self._lock:  # the last one to close a file writes its log back
            if self._files is not None and self._files.have_changed():
                self._disconnect_from_changed(self._files.identities, identities(self._name))
            else:
                self._disconnect_from_same()
        self._lock.close()

    def _disconnect_from_same(self) -> None:
        if self._connection is not None and self._hold.is_log_cut(self._name):
            super()._disconnect()  # held, so that SQLite does not write the remaining log into the file
        self._hold.release()
        super()._disconnect()

    def _disconnect_from_changed(self, own: Identities, found: Identities) -> None:
        """Save the contents of a deleted log, and close without touching the files that replaced it."""
        self._save(own, found)
        super()._disconnect()
        if found.main != own.main:
            _remove_leftovers(self._name, own)
        self._hold.release()  # not earlier: SQLite deletes by name the files that it believes to be its own

    def _save(self, own: Identities, found: Identities) -> None:
        """Write the log back into its file, unless others have begun a new one."""
        if self._connection is None:
            return
        replaced = found.main != own.main
        if replaced:
            log.error(f"{self._path} was deleted or replaced while it was open: its tasks are lost")
        elif found.wal == own.wal:
            log.error(f"{self._path}-shm was deleted or replaced while it was open: it is created again")
            return  # the log is complete, and others may have added to it
        elif _size(f"{self._name}-wal"):
            log.critical(f"{self._path}-wal was replaced while it was open: the tasks stored last may be lost")
            return
        else:
            log.error(f"{self._path}-wal was deleted while it was open: its content is written to the file")
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _check_files(self) -> None:
        """Prevent commits to files that others do not see. Called with the lock held."""
        if self._files is not None and self._files.have_changed():
            raise FilesChanged
        if self._hold.is_log_cut(self._name):
            raise EngineUnavailable(
                f"{self._path}-wal was truncated while it was open: its content is lost, and a commit now would "
                "damage the file: stop all processes that use it, then start them again"
            )

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
            due = connection.look().next_due
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
        return any(operation.is_needed(connection) for operation in operations)

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
        if connection.room_at is not None:
            self.room_at, connection.room_at = connection.room_at, None
        sooner = due is not None and (self.next_due is None or due < self.next_due)
        self.next_due = due
        if connection.queued or sooner:
            self._wake_all()
        if connection.left_behind:  # in between other operations, and after them
            self.submit([self._go_on()])
        for one in connection.set_aside:
            telemetry.set_aside(one.id, one.name, one.reason)

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


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _remove_leftovers(path: str, files: Identities) -> None:
    """Remove log and index of a deleted file: SQLite would apply them to the file that replaced it."""
    for name, own in ((f"{path}-wal", files.wal), (f"{path}-shm", files.shm)):
        if own is not None and identity(name) == own:
            with suppress(OSError):
                os.unlink(name)


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
