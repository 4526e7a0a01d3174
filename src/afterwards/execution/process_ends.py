"""How processes begin and end, as the system has it: signals, groups and exit codes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # no cycle: who has no process of its own does not load it
    from multiprocessing.context import SpawnProcess

ENDING = 3.0
"""Seconds that a process that is not needed any more may take to end, with its exit handlers."""


def kill(process: "SpawnProcess") -> None:
    """Kill a process, and the programs that its function has started."""
    kill_programs(process)
    process.kill()


def kill_programs(process: "SpawnProcess") -> None:
    """Kill the group that a process leads: nobody else's, for no other gets its id as long as the group has members."""
    if hasattr(os, "killpg") and process.pid is not None:
        with suppress(
            ProcessLookupError, PermissionError
        ):  # none is left, or it has not come so far as to have a group
            os.killpg(process.pid, signal.SIGKILL)


def how_it_ended(exitcode: int | None) -> str:
    """How a process ended, as the end of a sentence."""
    if exitcode is None:  # somebody else has asked the system, which says it once
        return "ended, nobody knows how"
    if exitcode >= 0:
        return f"ended with exit status {exitcode} before the function did; standard error may say why"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Meanwhile a process begins with Ctrl-C and SIGTERM blocked, until it knows what to do about them."""
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
