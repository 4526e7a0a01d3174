"""What the workers of this process share with each other."""

import threading
from collections.abc import Collection
from itertools import count
from typing import TYPE_CHECKING, Protocol

from afterwards.core.process_state import ProcessState
from afterwards.core.task import Lease

if TYPE_CHECKING:  # handles enter themselves here
    from afterwards.execution.process_handle import ProcessHandle


class Leaseholder(Protocol):
    """Who holds leases in this process."""

    def leases(self) -> Collection[Lease]: ...


class ProcessWide(ProcessState):
    """The leases that all workers of this process hold, and the processes that run task functions for them."""

    def __init__(self) -> None:
        self.leaseholders: set[Leaseholder] = set()  # none of their leases is lost, whatever the clock says
        self.processes: set[ProcessHandle] = set()
        self.numbers = count(1)  # of processes, for their names
        self.starting = threading.Lock()  # of a process: `multiprocessing` keeps its list of them without a lock


process_wide = ProcessWide()
