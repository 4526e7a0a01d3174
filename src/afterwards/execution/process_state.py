"""All that the workers of this process share with each other, in one place."""

import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Protocol

from afterwards import telemetry
from afterwards.core.task import Lease

if TYPE_CHECKING:  # handles enter themselves here
    from afterwards.execution.process_handle import ProcessHandle


class Leaseholder(Protocol):
    """Who holds leases in this process."""

    def leases(self) -> Collection[Lease]: ...


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes that run task functions for this one."""

    living: "set[ProcessHandle]" = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    starting: threading.Lock = field(default_factory=threading.Lock)  # `multiprocessing` keeps its list without one


processes = Processes()

leaseholders: set[Leaseholder] = set()
"""The workers of this process: none of the leases that they hold is lost, whatever the clock says."""


def start_afresh() -> None:
    """Forget what workers and their log have left, as if this process had just begun. Living processes stay known."""
    leaseholders.clear()
    telemetry.start_afresh()
