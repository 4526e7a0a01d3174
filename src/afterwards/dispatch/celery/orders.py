"""Tells the processes of a prefork pool when to end, and their main process when they cannot begin.

File locks work for processes that were forked and for those that were spawned, and a process that is killed loses them.
"""

import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any, Self

fcntl: Any = None
if os.name == "posix":  # elsewhere Celery has no prefork
    import fcntl

VARIABLE = "AFTERWARDS_CELERY_POOL"
"""The environment variable that a pool's processes inherit. It is no setting."""

DRAIN, END = 0, 1
"""The bytes of the file that the main process locks: until they are to drain, and until they are to end at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The facts about a Celery worker that the processes of its pool need."""

    folder: str
    main: int  # the process id
    queues: tuple[str, ...]

    @classmethod
    def found(cls) -> Self | None:
        """Return the facts about the worker whose pool this process belongs to, if it does."""
        text = os.environ.get(VARIABLE)
        if text is None:
            return None
        facts = json.loads(text)
        return cls(**facts | {"queues": tuple(facts["queues"])})

    def fail(self) -> None:
        """End the Celery worker with an error: a process of its pool cannot run tasks."""
        if not self.has_failed:  # a second signal would end the grace period of the others
            self._failed.touch()
            os.kill(self.main, signal.SIGTERM)

    @property
    def has_failed(self) -> bool:
        return self._failed.exists()

    @property
    def lock(self) -> Path:
        return Path(self.folder, "lock")

    @property
    def _failed(self) -> Path:
        return Path(self.folder, "failed")


class Orders:
    """The main process's end."""

    def __init__(self, queues: frozenset[str]) -> None:
        self.pool = Pool(folder=tempfile.mkdtemp(prefix="afterwards-celery-"), main=os.getpid(), queues=(*queues,))
        os.environ[VARIABLE] = json.dumps(asdict(self.pool))
        self.failed = False  # whether a process of the pool could not run tasks; known when all have ended
        self._file = os.open(self.pool.lock, os.O_RDWR | os.O_CREAT, 0o600)
        if fcntl is not None:
            for order in (DRAIN, END):
                fcntl.lockf(self._file, fcntl.LOCK_EX, 1, order)

    def give(self, order: int) -> None:
        """Give an order, and those before it. Signal handlers may call this."""
        if fcntl is None:
            return
        for earlier in range(order + 1):
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, earlier)

    def close(self) -> None:
        if os.getpid() != self.pool.main:  # a process that the main one forked
            return
        self.failed = self.failed or self.pool.has_failed
        os.environ.pop(VARIABLE, None)
        rmtree(self.pool.folder, ignore_errors=True)


def obey(pool: Pool, drain: Callable[[int], None]) -> None:
    """Call ``drain(1)`` and ``drain(2)`` when the main process says so, or has died. Returns at once."""
    threading.Thread(target=_obey, args=(pool.lock, drain), name="afterwards-celery-orders", daemon=True).start()


def _obey(lock: Path, drain: Callable[[int], None]) -> None:
    try:
        file = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:  # the main process has ended
        drain(2)
        return
    for times, order in enumerate((DRAIN, END), 1):
        fcntl.lockf(file, fcntl.LOCK_SH, 1, order)
        drain(times)
