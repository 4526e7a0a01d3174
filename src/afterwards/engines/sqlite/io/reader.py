"""The thread that reads, on a connection that cannot write."""

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from afterwards.engines.sqlite.io.connection import BEGIN_READING, COMMIT, OwnConnection
from afterwards.engines.sqlite.io.file_identity import OpenFiles, identities, uses_deleted_index
from afterwards.engines.sqlite.io.file_locks import kept
from afterwards.engines.sqlite.io.operation import Operation
from afterwards.engines.sqlite.io.thread import ConnectionThread


class Reader(ConnectionThread):
    """Run one read at a time, each on one state of the file. Reads are short: a long one stops checkpoints."""

    name = "reader"

    def __init__(self, path: Path, connect: Callable[[], OwnConnection], *, clock: Callable[[], datetime]) -> None:
        super().__init__(path, connect)
        self._clock = clock

    def _have_changed(self, files: OpenFiles) -> bool:
        """Return False while the log is missing: it is read through the open descriptor until the writer saves it."""
        return files.have_changed() and identities(self._name) != files.identities._replace(wal=None)

    def _look_around(self, *, nudged: bool) -> None:
        """Close the connection if the writer must open the file anew, and would get a deleted index from this one."""
        if nudged and self._connection is not None and uses_deleted_index(self._name):
            self._disconnect()

    def _disconnect(self) -> None:
        with kept(self._path):  # only the writer knows whether the log may be cleaned up
            super()._disconnect()

    def _perform(self, operations: Sequence[Operation[Any]]) -> None:
        for operation in operations:
            try:
                operation.result = self._read_any_text(operation)
            except Exception as error:  # the error is passed to the caller
                self._failed([operation], error)

    def _read_any_text(self, operation: Operation[Any]) -> Any:
        try:
            return self._read(operation)
        except sqlite3.OperationalError as error:
            if self._connection is None or not self._connection.accept_odd_texts(error):
                raise
            return self._read(operation)

    def _read(self, operation: Operation[Any]) -> Any:
        self._disconnect_if_changed()
        connection = self._connected()
        connection.begin(self._clock())
        connection.execute(BEGIN_READING)
        try:
            return operation.run(connection)
        finally:
            connection.execute(COMMIT)
