"""Since when nothing has kept the living from renewing their leases, as one process sees it."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

LEAST_JUMP = timedelta(seconds=1)
"""A smaller difference between the wall clock and the monotonic one is no jump."""

LEAST_PAUSE = timedelta(seconds=5)
"""A shorter time without a look is no pause, however short the lease."""

AT_THE_START = timedelta(seconds=2)
"""How long a new process waits: the others notice trouble, and renew, within a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calm:
    """What a process saw at its last look. ``steady`` is a clock that nobody sets, in seconds."""

    lease: timedelta
    since: float  # steady
    steady: float
    offset: float  # of the wall clock to the steady one, in seconds
    jump: timedelta = timedelta()  # of the wall clock, seen by the last look

    @property
    def long_enough(self) -> bool:
        """Whether all that live must have renewed their leases by now."""
        return self.steady - self.since >= _patience(self.lease)


def at_start(lease: timedelta, now: datetime, steady: float) -> Calm:
    """The first look."""
    since = steady - max(0.0, _patience(lease) - AT_THE_START.total_seconds())
    return Calm(lease=lease, since=since, steady=steady, offset=now.timestamp() - steady)


def look(before: Calm, now: datetime, steady: float) -> Calm:
    """The next look: a clock that jumped, or a process that did not run, ends the calm."""
    offset = now.timestamp() - steady
    jump = timedelta(seconds=offset - before.offset)
    if abs(jump) > max(before.lease / 6, LEAST_JUMP):
        return replace(before, since=steady, steady=steady, offset=offset, jump=jump)
    paused = steady - before.steady > max(before.lease / 2, LEAST_PAUSE).total_seconds()
    return replace(before, since=steady if paused else before.since, steady=steady, jump=timedelta())


def disturbed(before: Calm, steady: float) -> Calm:
    """The store did not answer, or not soon: others cannot have renewed their leases either."""
    return replace(before, since=steady)


def _patience(lease: timedelta) -> float:
    """Leases are renewed three times in their span."""
    return lease.total_seconds() / 2
