"""Facts about a file and its place that an operator should know."""

import os
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path

from afterwards.engines.sqlite.io.checks import MOUNTS, has_wal_reset_bug, mount_of
from afterwards.engines.sqlite.io.peers import LOCKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A SQLite file and its place."""

    version: str  # of the SQLite library
    has_wal_reset_bug: bool
    takes_turns: bool  # processes of this package never write at the same instant
    file_system: str | None  # None: the system does not tell
    size: int  # bytes, with the log
    free: int  # bytes that are left on the disk for this user
    read_by_others: bool  # other users of the machine may read it


def diagnose(file: Path) -> Diagnosis:
    """Return the facts about a file that exists. Raises OSError."""
    parts = [file, *(part for end in ("-wal", "-shm") if (part := file.with_name(file.name + end)).exists())]
    try:
        mount = mount_of(str(file.resolve()), MOUNTS.read_text(errors="surrogateescape"))
    except OSError:
        mount = None
    return Diagnosis(
        version=sqlite3.sqlite_version,
        takes_turns=LOCKS,
        has_wal_reset_bug=has_wal_reset_bug(sqlite3.sqlite_version_info),
        file_system=mount.type if mount else None,
        size=sum(part.stat().st_size for part in parts),
        free=_free(file.parent),
        read_by_others=sys.platform != "win32" and any(part.stat().st_mode & 0o077 for part in parts),
    )


def _free(folder: Path) -> int:
    found = os.statvfs(folder) if sys.platform != "win32" else None
    return found.f_bavail * found.f_frsize if found else sys.maxsize
