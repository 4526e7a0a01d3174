"""Detect that the file, its log or its index was deleted or replaced while it is open."""

import os
import sys
import time
from typing import NamedTuple

MAPS = "/proc/self/maps"

Identity = tuple[int, int] | None
"""Device and inode of a path. They differ after the file was replaced."""

COARSEST_TIMESTAMP = 2_500_000_000
"""Nanoseconds within which a folder may change twice under one timestamp: FAT has steps of two seconds."""

Stamp = tuple[int, int, int]
"""Device, inode and last change of a folder."""


class Identities(NamedTuple):
    """The files of an open database."""

    main: Identity
    wal: Identity
    shm: Identity


class OpenFiles:
    """The files that a connection has open, and whether their paths still name them."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder = os.path.dirname(path)
        self._stamp: Stamp | None = None
        self.identities = identities(path)

    def have_changed(self) -> bool:
        """Return True if the path of one of the files names another file now, or none.

        A folder whose entries change gets a new timestamp, so one check of the folder replaces three of files. It is
        the time of the inode's last change, which no program can set. The modification time can be set, and rsync does
        so.
        """
        stamp = _stamp(self._folder)
        if stamp is not None and stamp == self._stamp:
            return False
        if identities(self._path) != self.identities:
            return True
        self._stamp = stamp if stamp is not None and time.time_ns() - stamp[2] > COARSEST_TIMESTAMP else None
        return False


def uses_deleted_index(path: str) -> bool:
    """Return True if this process has a deleted index of the file open, and not the one that is there now.

    SQLite gives all connections of a process to one file the same index, as long as one of them is open. False where
    the system does not tell.
    """
    try:
        with open(MAPS, encoding="utf-8", errors="surrogateescape") as maps:
            mapped = [line for line in maps if f"{path}-shm" in line]
    except OSError:
        return False
    if not any(line.endswith(f"{path}-shm (deleted)\n") for line in mapped):
        return False
    now = identity(f"{path}-shm")
    return now is None or not any(line.split(maxsplit=5)[4] == str(now[1]) for line in mapped)


def identities(path: str) -> Identities:
    return Identities(identity(path), identity(f"{path}-wal"), identity(f"{path}-shm"))


def identity(path: str) -> Identity:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _stamp(folder: str) -> Stamp | None:
    """Return the stamp of a folder, None if the system keeps no such time."""
    if sys.platform != "linux":
        return None
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns
