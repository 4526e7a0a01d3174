"""The heartbeats of attempts, and the answers to them."""

from dataclasses import dataclass

from afterwards.core.progress import Progress
from afterwards.core.task import Lease


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life of one attempt, with its progress since the last one."""

    lease: Lease
    progress: Progress | None = None  # None leaves the stored one


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that a heartbeat renewed, and the reason why its task should stop, if somebody asked for that."""

    lease: Lease
    cancel_requested: str | None = None
