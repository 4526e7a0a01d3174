"""Locks that show that this process uses the file, and that nothing else in the process can drop.

POSIX drops all locks that a process has on a file when the process closes any descriptor of that file. This includes
SQLite's locks, for example after ``open(path).read()`` or ``shutil.copy``. Another process that closes the file then
believes that it is the only user, and deletes the log that the first one uses. Locks of an open file description
(Linux) end with that description only. They conflict with SQLite's own, so SQLite finds the file in use as long as one
is held.
"""

import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform == "linux":
    import fcntl

WORKS = sys.platform == "linux"

SHARED = (0x40000000 + 2, 510)
"""The bytes of the database that every connection of SQLite locks for reading (SHARED_FIRST in its os.h)."""
ALIVE = (128, 1)
"""The byte of the ``-shm`` file that every connection locks for reading (UNIX_SHM_DMS in its os_unix.c)."""

MOST_IDLE = 64
"""Descriptors kept open unused: to close one may drop locks of the application's own connections."""

_LOG_HEADER, _FRAME_HEADER = 32, 24
_FLOCK = "@hhqqi0q"
_held: set[int] = set()
_idle: dict[tuple[int, int], list[int]] = {}  # by device and inode


class Hold:
    """A lock that keeps SQLite, in any process, from treating the file as unused."""

    def __init__(self) -> None:
        self._held: list[tuple[int, tuple[int, int]]] = []

    def take(self, path: Path) -> None:
        """Lock the file that a connection of this process has open. Raises OSError."""
        if not WORKS:
            return
        try:
            self._add(str(path), SHARED)
            self._add(f"{path}-shm", ALIVE)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock, so that the last connection that closes cleans up."""
        held, self._held = self._held, []
        for file, part in held:
            _held.discard(file)
            with suppress(OSError):
                _lock(file, fcntl.F_UNLCK, part)
            _put_aside(file)

    def is_log_cut(self, path: str) -> bool:
        """Return True if the log is shorter than its index says: another program has truncated it."""
        if len(self._held) < 2:
            return False
        _, [index, _] = self._held
        frames, page_size = found = _log_of(index)
        if not frames or os.stat(f"{path}-wal").st_size >= _LOG_HEADER + frames * (_FRAME_HEADER + page_size):
            return False
        return _log_of(index) == found  # otherwise a checkpoint has just restarted the log

    def _add(self, path: str, part: tuple[int, int]) -> None:
        file = _open(path)
        try:
            _lock(file, fcntl.F_RDLCK, part)
        except BaseException:
            _put_aside(file)
            raise
        self._held.append((file, part))
        _held.add(file)


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Keep SQLite from treating the file as unused while the block closes a connection."""
    file = -1
    if WORKS:
        with suppress(OSError):  # it is deleted
            file = _open(str(path))
            _lock(file, fcntl.F_RDLCK, SHARED)
    try:
        yield
    finally:
        if file >= 0:
            with suppress(OSError):
                _lock(file, fcntl.F_UNLCK, SHARED)
            _put_aside(file)


def in_use(path: Path) -> bool:
    """Return True if a connection in any process has the file open. False if that cannot be known."""
    if not WORKS:
        return False
    try:
        file = _open(str(path))
    except OSError:
        return False
    try:
        return _is_locked(file, SHARED)
    finally:
        _put_aside(file)


def forget() -> None:
    """Close inherited descriptors in a child after a fork. The locks stay the parent's, which has it open too."""
    while _held:
        os.close(_held.pop())
    while _idle:
        _, files = _idle.popitem()
        for file in files:
            os.close(file)


def _open(path: str) -> int:
    found = os.stat(path)
    if files := _idle.get((found.st_dev, found.st_ino)):
        with suppress(IndexError):
            return files.pop()
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def _put_aside(file: int) -> None:
    """Keep a descriptor for the next use, unless the file is deleted."""
    found = os.fstat(file)
    if found.st_nlink == 0:
        os.close(file)
        return
    _idle.setdefault((found.st_dev, found.st_ino), []).append(file)
    if sum(map(len, _idle.values())) > MOST_IDLE:
        _close_one()


def _close_one() -> None:
    """Close the oldest unused descriptor of a file on which nobody has a lock."""
    for key, files in list(_idle.items()):
        for file in list(files):
            if os.fstat(file).st_nlink == 0 or not _is_locked(file, (0, 0)):
                with suppress(ValueError):
                    files.remove(file)
                    os.close(file)
                if not files:
                    _idle.pop(key, None)
                return


def _log_of(index: int) -> tuple[int, int]:
    """Return how many frames the log has, and the page size (sqlite.org/walformat.html, "The WAL-Index Header")."""
    page_size, frames = struct.unpack("=HI", os.pread(index, 6, 14).ljust(6, b"\0"))
    return frames, 65536 if page_size == 1 else page_size


def _lock(file: int, kind: int, part: tuple[int, int]) -> None:
    start, length = part
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0))


def _is_locked(file: int, part: tuple[int, int]) -> bool:
    start, length = part
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind, *_ = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))
    return bool(kind != fcntl.F_UNLCK)
