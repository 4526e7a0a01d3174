"""Start and end of processes at system level: signals, groups and exit codes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # no cycle: not loaded unless a process is needed
    from multiprocessing.context import SpawnProcess

ENDING = 3.0
"""Seconds that a process that is no longer needed may take to end, including its exit handlers."""


def kill(process: "SpawnProcess") -> None:
    """Kill a process, and the programs that its function has started."""
    kill_programs(process)
    process.kill()


def kill_programs(process: "SpawnProcess") -> None:
    """Kill the group that a process leads. The id is not reused as long as the group has members."""
    if hasattr(os, "killpg") and process.pid is not None:
        with suppress(ProcessLookupError, PermissionError):  # none is left, or it has not created its group yet
            os.killpg(process.pid, signal.SIGKILL)


def ended_by_itself(exitcode: int | None) -> bool:
    """Return whether a process ended with a status of its own, such as that of an import that failed."""
    return exitcode is not None and exitcode >= 0


def how_it_ended(exitcode: int | None) -> str:
    """Return how a process ended, as the end of a sentence."""
    if exitcode is None:  # other code has already collected the exit status, which the system reports once
        return "ended, and its exit status is unknown"
    if exitcode >= 0:
        return f"ended with exit status {exitcode} before the function returned; its standard error may say why"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM in processes started inside the block, until they have set their handlers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starting it would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
