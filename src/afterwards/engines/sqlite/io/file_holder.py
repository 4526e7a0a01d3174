"""The thread that holds the file, and notices that the file, its log or its index was deleted or replaced."""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from afterwards.core.errors import EngineUnavailable
from afterwards.engines.sqlite.io.connection import OwnConnection
from afterwards.engines.sqlite.io.file_identity import Identities, identities, identity, uses_deleted_index
from afterwards.engines.sqlite.io.file_locks import Hold, in_use, kept
from afterwards.engines.sqlite.io.peers import WriteLock
from afterwards.engines.sqlite.io.thread import ConnectionThread
from afterwards.telemetry import log

LONGEST_RESCUE = 2.0
"""Seconds that an open waits for another process to write back a deleted log that it still has open."""


class FilesChanged(Exception):
    """The file, its log or its index was deleted or replaced while this process had it open."""


class FileHolder(ConnectionThread):
    """A connection that holds its file as long as it is open, and leaves files that others do not see.

    ``wake_all`` wakes the waiting workers of all processes. ``release`` has the reader close a connection to files that
    were deleted.
    """

    def __init__(
        self,
        path: Path,
        connect: Callable[[], OwnConnection],
        *,
        lock: WriteLock,
        wake_all: Callable[[], None],
        release: Callable[[], None],
    ) -> None:
        super().__init__(path, connect)
        self._lock = lock
        self._wake_all = wake_all
        self._release = release
        self._hold = Hold()

    def _open(self) -> OwnConnection:
        self._lock.open()
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
