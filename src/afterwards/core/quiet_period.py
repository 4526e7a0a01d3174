"""The quiet period: how long live workers have been able to renew their leases, as one process observes it.

A lease that has run out is reclaimed only after a quiet period that is long enough. A clock jump, a pause of this
process or an outage of the store starts it again.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

LEAST_JUMP = timedelta(seconds=1)
"""The smallest difference between the wall clock and the monotonic clock that counts as a jump."""

LEAST_PAUSE = timedelta(seconds=5)
"""The shortest time without an observation that counts as a pause of this process, however short the lease."""

TIME_TO_NOTICE = timedelta(seconds=2)
"""The time that every worker has to notice a clock jump or an outage, and to renew: they look once a second.

A new process waits as long before it reclaims.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietPeriod:
    """The state at the last observation. ``steady`` is the monotonic clock, in seconds."""

    lease: timedelta
    since: float  # steady
    steady: float
    offset: float  # of the wall clock to the steady one, in seconds
    jump: timedelta = timedelta()  # of the wall clock, found by the last observation

    @property
    def long_enough(self) -> bool:
        """True when every live worker must have renewed its leases since the period began."""
        return self.steady - self.since >= _required(self.lease)


def at_start(lease: timedelta, now: datetime, steady: float) -> QuietPeriod:
    """Return the state of a process that has just started."""
    since = steady - (_required(lease) - TIME_TO_NOTICE.total_seconds())
    return QuietPeriod(lease=lease, since=since, steady=steady, offset=now.timestamp() - steady)


def observe(before: QuietPeriod, now: datetime, steady: float) -> QuietPeriod:
    """Return the state at the next observation. A clock jump or a pause of this process starts the period again."""
    offset = now.timestamp() - steady
    jump = timedelta(seconds=offset - before.offset)
    if abs(jump) > max(before.lease / 6, LEAST_JUMP):
        return replace(before, since=steady, steady=steady, offset=offset, jump=jump)
    paused = steady - before.steady > max(before.lease / 2, LEAST_PAUSE).total_seconds()
    return replace(before, since=steady if paused else before.since, steady=steady, jump=timedelta())


def interrupted(before: QuietPeriod, steady: float) -> QuietPeriod:
    """Start the period again: the store answered late or not at all, so others could not renew their leases either."""
    return replace(before, since=steady)


def _required(lease: timedelta) -> float:
    """Return the required length in seconds: half a lease, which a live worker renews three times in its span.

    Others may have longer leases, and renew them at once only after they have noticed the jump or the outage.
    """
    return max(lease / 2, TIME_TO_NOTICE).total_seconds()
