"""Signals between the processes of one machine that share a file: who lives, who writes, that there is work.

Each process that has the file open keeps two files in the folder beside it. They are named by the process's own id. The
process holds ``<id>.lock`` locked as long as it lives, and lists its workers in it. ``<id>.sock`` is its socket. The
kernel drops a lock when its process dies, however it dies. A process that is only stopped keeps it.
"""

import os
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType

if sys.platform != "win32":
    import fcntl

LOCKS = sys.platform != "win32"


class Presence:
    """The sign of life of this process, and those of the others."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = uuid.uuid4().hex
        self._workers: set[str] = set()
        self._lock = -1

    def enter(self) -> None:
        """Show the others that this process lives."""
        if not LOCKS:
            return
        unborn = self._folder / f"{self._name}.new"
        self._lock = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        _try_lock(self._lock)
        unborn.rename(self._folder / f"{self._name}.lock")  # so that nobody sees it before it is locked

    def leave(self) -> None:
        if self._lock >= 0:
            _remove(self._folder / f"{self._name}.lock")
            self.forget()

    def forget(self) -> None:
        """Forget the sign of life in a child after a fork: it is the parent's alone."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def note(self, worker: str) -> None:
        """Record that a worker lives in this process. Called before it is given its first lease."""
        if worker not in self._workers:
            with suppress(OSError):  # the disk is full: then only its leases show whether it lives
                if self._lock >= 0:
                    os.write(self._lock, f"{worker}\n".encode())
            self._workers.add(worker)

    @contextmanager
    def dead(self) -> Iterator[list[str]]:
        """Yield the workers of dead processes. If the block raises no error, these processes' files are removed."""
        with ExitStack() as stack:
            workers, remains = [], []
            for path in self._others():
                if (left := stack.enter_context(_left_behind(path))) is not None:
                    workers += left
                    remains += [path, path.with_suffix(".sock")]
            yield workers
            for path in remains:
                _remove(path)

    def _others(self) -> list[Path]:
        own = f"{self._name}.lock"
        return [path for path in self._folder.glob("*.lock") if path.name not in (own, WriteLock.NAME)] if LOCKS else []

    @property
    def socket_name(self) -> str:
        return f"{self._name}.sock"


class WriteLock:
    """A lock that lets one process at a time write.

    It is needed because some versions of SQLite damage a file without it. It also wakes waiting processes at once,
    whereas SQLite has them check again after longer and longer pauses. A wait ends only with the lock: another thread
    may ask how long it has lasted.
    """

    NAME = "write.lock"

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.NAME
        self._file = -1
        self._waiting_since: float | None = None

    @property
    def waited(self) -> float:
        """Return for how many seconds this process has been waiting for another one."""
        since = self._waiting_since
        return 0.0 if since is None else time.monotonic() - since

    def open(self) -> None:
        if LOCKS and self._file < 0:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> None:
        if self._file >= 0 and not _try_lock(self._file):
            self._waiting_since = time.monotonic()
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX)
            finally:
                self._waiting_since = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file >= 0:
            fcntl.flock(self._file, fcntl.LOCK_UN)


class Mailbox:
    """Wake the other processes, and be woken by them. The signals are empty datagrams, which may get lost."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._directory = -1
        self._receiver: socket.socket | None = None
        self._sender: socket.socket | None = None
        self._listed_at: int | None = None
        self._others: list[str] = []

    def open(self) -> bool:
        """Open the socket. Returns False if that fails: then nothing is sent, and nothing comes."""
        try:
            self._directory = os.open(self._folder, os.O_RDONLY)
            self._receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._receiver.bind(self._address(self._name))
            self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sender.setblocking(False)
        except (OSError, AttributeError):  # AttributeError: Windows has no AF_UNIX
            self.close()
        return self._receiver is not None

    def close(self) -> None:
        """Forget the others, and remove the address of this process."""
        if self._receiver is not None:
            _remove(self._folder / self._name)
        self.forget()

    def forget(self) -> None:
        """Forget the address in a child after a fork: it is the parent's alone."""
        for end in (self._receiver, self._sender):
            if end is not None:
                end.close()
        self._receiver = self._sender = None
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def send(self) -> None:
        """Wake the others."""
        if self._sender is None:
            return
        with suppress(OSError):  # the folder is gone
            for name in self._listed():
                with suppress(OSError):  # it is dead, or has not read the last ones yet
                    self._sender.sendto(b"", self._address(name))

    def receive(self, timeout: timedelta) -> bool:
        """Wait until another process sends. Returns True if one did."""
        receiver = self._receiver
        if receiver is None:
            time.sleep(timeout.total_seconds())
            return False
        try:
            receiver.settimeout(timeout.total_seconds())
            receiver.recv(1)
        except OSError:  # the time is over, or the mailbox closed
            return False
        return True

    def send_to_self(self) -> None:
        if self._sender is not None:
            with suppress(OSError):
                self._sender.sendto(b"", self._address(self._name))

    def _listed(self) -> list[str]:
        """Return the addresses of the others, read again when the folder has changed."""
        changed_at = os.stat(self._directory).st_mtime_ns
        if changed_at != self._listed_at:
            names = os.listdir(self._folder)
            self._others = [name for name in names if name.endswith(".sock") and name != self._name]
            settled = time.time_ns() - changed_at > 100_000_000  # else it may change again under the same timestamp
            self._listed_at = changed_at if settled else None
        return self._others

    def _address(self, name: str) -> str:
        """Return a path short enough for a socket, however deep the folder lies."""
        if sys.platform == "linux":
            return f"/proc/self/fd/{self._directory}/{name}"
        return str(self._folder / name)


def make_folder(path: Path) -> tuple[Path, bool]:
    """Make the folder beside the file, for its owner only. Returns it, and whether it is new."""
    folder = path.with_name(f"{path.name}-run")
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return folder, False
    return folder, True


def remove_folder(folder: Path) -> None:
    """Remove the folder, only if no other process can have begun to use it."""
    with suppress(OSError):
        _remove(folder / WriteLock.NAME)
        folder.rmdir()


@contextmanager
def _left_behind(path: Path) -> Iterator[list[str] | None]:
    """Yield the workers listed in the file of a dead process, None if it lives. Others are locked out meanwhile."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:  # another process was faster
        yield None
        return
    try:
        yield _read(file).splitlines() if _try_lock(file) else None
    finally:
        os.close(file)


def _read(file: int) -> str:
    return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
