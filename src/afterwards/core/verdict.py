"""The answer to a probe: whether a process works, and why not."""

from dataclasses import dataclass
from datetime import timedelta

SILENT_AFTER = timedelta(seconds=60)
"""The longest time without a claim of a worker that has free slots. An idle worker claims every five seconds."""

EXTREME_LAG = timedelta(seconds=10)
"""The lateness of an event loop that is no use to its clients any more."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """200 if ``well``, else 503, and the reason."""

    well: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """Observations of the worker of a process."""

    trouble: str | None = None  # why tasks that are added now would not run
    works: bool = True  # a worker runs here
    silent: timedelta | None = None  # since its last claim; None if it need not claim
    lag: timedelta | None = None  # how late its event loop was lately


def liveness(vitals: Vitals) -> Verdict:
    """Decide whether a restart would help. It would not if only the store is away.

    >>> liveness(Vitals(silent=timedelta(minutes=2))).reason
    'the worker has not claimed tasks for 120 s'
    """
    if vitals.trouble is not None:
        return Verdict(False, vitals.trouble)
    if vitals.silent is not None and vitals.silent > SILENT_AFTER:
        return Verdict(False, f"the worker has not claimed tasks for {vitals.silent.total_seconds():.0f} s")
    if vitals.lag is not None and vitals.lag > EXTREME_LAG:
        return Verdict(False, f"the event loop was blocked for {vitals.lag.total_seconds():.0f} s")
    return Verdict(True, "the worker runs" if vitals.works else "no worker runs in this process")
