"""Copy the file as it stands at one instant."""

import os
import sqlite3
import uuid
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

from afterwards.core.errors import EngineError
from afterwards.engines.sqlite.io.errors import translated
from afterwards.engines.sqlite.io.schema import connect_to_read


def write(source: Path, target: Path, *, patience: timedelta) -> None:
    """Copy the database, and then move the copy to the target: a failed copy leaves nothing there.

    Raises EngineError.
    """
    with suppress(OSError):
        if os.path.samefile(source, target):
            raise EngineError(f"{target} is the file that shall be copied: give another path")
    unfinished = target.with_name(f"{target.name}.{uuid.uuid4().hex}.new")
    try:
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        _copy(source, unfinished, patience)
        os.replace(unfinished, target)
        _sync(target.absolute().parent)
    except (OSError, sqlite3.Error) as error:
        raise translated(error, target) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _copy(source: Path, target: Path, patience: timedelta) -> None:
    with closing(connect_to_read(source, patience=patience)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)
        written.execute("PRAGMA journal_mode = DELETE")  # one file, which read-only media may hold


def _sync(folder: Path) -> None:
    with suppress(OSError):  # Windows cannot open a folder
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
