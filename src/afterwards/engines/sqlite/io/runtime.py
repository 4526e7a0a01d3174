"""The parts of an open engine in one process: its threads, its sign of life, its mailbox."""

import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from logging import INFO, WARNING
from pathlib import Path
from typing import Any
from weakref import WeakSet

from afterwards.core.errors import EngineUnavailable
from afterwards.engines.sqlite.io import file_locks
from afterwards.engines.sqlite.io.checks import has_wal_reset_bug
from afterwards.engines.sqlite.io.operation import Operation
from afterwards.engines.sqlite.io.peers import LOCKS, Mailbox, Presence, WriteLock, make_folder, remove_folder
from afterwards.engines.sqlite.io.reader import Reader
from afterwards.engines.sqlite.io.schema import connect, connect_to_read
from afterwards.engines.sqlite.io.writer import Writer
from afterwards.engines.wakeup import Wakeup
from afterwards.telemetry import log, once

POLL = timedelta(seconds=0.7)
"""Time between two checks for other processes' writes, if these also send a wake-up."""
POLL_WITHOUT_WAKEUPS = timedelta(milliseconds=50)
"""The same if they cannot: on Windows, or if the file system has no sockets."""
TRIES = 5
"""How often a waiting write lets others join it within an engine's patience. It waits that long each time."""
WATCH = timedelta(seconds=1)
"""Time between two checks whether a thread is stuck."""

gate = threading.RLock()
"""Held during any open, close, or fork."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of an engine."""

    path: Path
    clock: Callable[[], datetime]
    patience: timedelta  # how long a write waits for other processes


class Opened:
    """The part of an engine that a fork must not share."""

    def __init__(self, settings: Settings, go_on: Callable[[], Operation[Any]]) -> None:
        self.pid = os.getpid()
        self.wakeup = Wakeup()
        self._path = path = settings.path
        self._folder, self._made_folder = folder, _ = make_folder(path)
        self.presence = Presence(folder)
        self._mailbox = Mailbox(folder, self.presence.socket_name)
        is_woken = self._mailbox.open()
        self.writer = Writer(
            path,
            partial(connect, path, patience=settings.patience / TRIES),
            lock=WriteLock(folder),
            patience=settings.patience,
            clock=settings.clock,
            poll=POLL if is_woken else POLL_WITHOUT_WAKEUPS,
            wake_all=self._wake_all,
            wake_here=self.wakeup.set,
            release=self._release_reader,
            go_on=go_on,
        )
        self.reader = Reader(path, partial(connect_to_read, path, patience=settings.patience), clock=settings.clock)
        self._attending = True
        self.in_use = False

    def start(self) -> None:
        try:
            self.presence.enter()
            threading.Thread(target=self._attend, name="afterwards-sqlite-attendant", daemon=True).start()
            with gate:
                self.resume()
                _opened.add(self)
        except (OSError, RuntimeError):  # RuntimeError: the system has no thread left
            self.stop()
            raise

    def stop(self, *, refused: bool = False) -> None:
        """Finish the calls made so far, and clean up. Blocks; may be called in any thread."""
        with gate:
            _opened.discard(self)
            self.pause()
        closed = EngineUnavailable(f"{self._path} is closed")
        for thread in (self.reader, self.writer):
            thread.refuse(closed)
        self._attending = False
        self._mailbox.send_to_self()
        self._mailbox.close()
        self.presence.leave()
        if refused and self._made_folder:  # the folder lies beside a file that is not ours
            remove_folder(self._folder)

    # Around a fork: SQLite's locks belong to a process. A child with an open connection of its parent would believe
    # that it holds the parent's locks, and the parent would remove the log while the child uses it.

    def pause(self) -> None:
        """Close both connections, the writer's last. Later calls wait."""
        self.in_use = False
        for thread in (self.reader, self.writer):
            thread.stop()
            if not thread.join():
                self.in_use = True
                log.warning(f"the {thread.name} of {self._path} is still busy")

    def resume(self) -> None:
        for thread in (self.writer, self.reader):
            thread.start()

    def forget(self) -> None:
        """Drop what belongs to the parent. The child makes its own when it needs it."""
        self.presence.forget()
        self._mailbox.forget()

    def _release_reader(self) -> None:
        self.reader.nudge()

    def _wake_all(self) -> None:
        self.wakeup.set()
        self._mailbox.send()

    def _attend(self) -> None:
        """In its own thread, which touches no disk: pass on what others send, and watch the other threads."""
        while self._attending:
            if self._mailbox.receive(WATCH):
                self.writer.nudge()
            for thread in (self.writer, self.reader):
                thread.watch()


_opened: WeakSet[Opened] = WeakSet()


def _before_fork() -> None:
    gate.acquire()
    for opened in list(_opened):
        opened.pause()


def _in_the_parent() -> None:
    for opened in list(_opened):
        opened.resume()
    gate.release()


def _in_the_child() -> None:
    for opened in list(_opened):
        opened.forget()
    file_locks.forget()
    _opened.clear()
    gate.release()


if sys.platform != "win32":
    os.register_at_fork(before=_before_fork, after_in_parent=_in_the_parent, after_in_child=_in_the_child)


def say_what_is_old() -> None:
    """Log once that this version of SQLite has a bug, and how the bug is avoided."""
    if has_wal_reset_bug(sqlite3.sqlite_version_info):
        level, remedy = (
            (INFO, "processes take turns to write") if LOCKS else (WARNING, "open the file in one process only")
        )
        once(
            "wal reset bug",
            level,
            f"afterwards: {remedy}, because SQLite {sqlite3.sqlite_version} can damage a file when two processes write "
            "at the same instant (sqlite.org/wal.html#walresetbug); this is not needed with SQLite 3.51.3 or later",
        )


def say_what_joining_risks() -> None:
    """Log once that other writers of the file do not use this package's write lock, and what that may cause."""
    if has_wal_reset_bug(sqlite3.sqlite_version_info):
        once(
            "wal reset bug, joined",
            WARNING,
            "afterwards: install SQLite 3.51.3 or later, because tasks share a file with the application's sessions, "
            f"and SQLite {sqlite3.sqlite_version} can damage a file, though rarely, when two connections write at the "
            "same instant (sqlite.org/wal.html#walresetbug)",
        )
