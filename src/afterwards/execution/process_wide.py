"""State shared by the workers of this process."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Protocol

from afterwards.core.process_state import ProcessState
from afterwards.core.task import Lease

if TYPE_CHECKING:  # handles register themselves here
    from afterwards.execution.process_handle import ProcessHandle


class Leaseholder(Protocol):
    """A holder of leases in this process."""

    def leases(self) -> Collection[Lease]: ...


class ProcessWide(ProcessState):
    """The leases that all workers of this process hold, and the processes that run task functions for them."""

    def __init__(self) -> None:
        self.leaseholders: set[Leaseholder] = set()  # their leases are never reclaimed here, whatever the clock says
        self.processes: set[ProcessHandle] = set()
        self.awaited: dict[str, list[str]] = {}  # the tasks for whose results an attempt waits, by the id of its task
        self.numbers = count(1)  # numbers processes, for their names
        self.starting = threading.Lock()  # guards starting a process: `multiprocessing` has no lock for its list


process_wide = ProcessWide()


@contextmanager
def awaiting(waiting: str, awaited: str) -> Iterator[bool]:
    """Record that an attempt waits for a task's result. Yields True if that task waits for it, or is its own."""
    waits = process_wide.awaited
    waits.setdefault(waiting, []).append(awaited)
    try:
        yield _leads_to(awaited, waiting)
    finally:
        waits[waiting].remove(awaited)
        if not waits[waiting]:
            del waits[waiting]


def _leads_to(awaited: str, waiting: str) -> bool:
    found = [awaited]
    for id in found:
        found += [one for one in process_wide.awaited.get(id, ()) if one not in found]
    return waiting in found
