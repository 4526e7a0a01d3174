"""The answer to a probe: whether a process works, and why not."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

SILENT_AFTER = timedelta(seconds=60)
"""The longest time without a claim of a worker that has free slots. An idle worker claims every five seconds, and an
idle dispatcher asks for tasks every second."""

EXTREME_LAG = timedelta(seconds=10)
"""The lateness of an event loop that is no use to its clients any more."""


class Role(StrEnum):
    """The part of a process in running tasks."""

    WORKER = "worker"  # it claims tasks and runs them
    DISPATCHER = "dispatcher"  # it sends them to a fleet
    FLEET_WORKER = "fleet worker"  # it runs those that a fleet brings
    SENDER = "sender"  # it only stores them


DOES = {
    Role.WORKER: "the worker runs",
    Role.DISPATCHER: "the dispatcher runs",
    Role.FLEET_WORKER: "the fleet's worker runs",
    Role.SENDER: "no worker runs in this process",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """200 if ``well``, else 503, and the reason."""

    well: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """Observations of the worker of a process."""

    trouble: str | None = None  # why tasks that are added now would not run
    role: Role = Role.WORKER
    silent: timedelta | None = None  # since it last asked for tasks; None if it need not
    lag: timedelta | None = None  # how late its event loop was lately


def liveness(vitals: Vitals) -> Verdict:
    """Decide whether a restart would help. It would not if only the store is away.

    >>> liveness(Vitals(silent=timedelta(minutes=2))).reason
    'the worker has not claimed tasks for 120 s'
    """
    if vitals.trouble is not None:
        return Verdict(False, vitals.trouble)
    if vitals.silent is not None and vitals.silent > SILENT_AFTER:
        return Verdict(False, f"{_neglects(vitals.role)} for {vitals.silent.total_seconds():.0f} s")
    if vitals.lag is not None and vitals.lag > EXTREME_LAG:
        return Verdict(False, f"the event loop was blocked for {vitals.lag.total_seconds():.0f} s")
    return Verdict(True, DOES[vitals.role])


def _neglects(role: Role) -> str:
    return "the dispatcher has not sent tasks" if role is Role.DISPATCHER else "the worker has not claimed tasks"
