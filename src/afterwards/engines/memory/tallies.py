"""Counts of ended attempts, in memory."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from afterwards.core.clock_correction import put_back
from afterwards.core.tallies import KEPT, Ends, Tally, added, step_of


class KeptTallies:
    """The ends of each minute."""

    def __init__(self) -> None:
        self._ends: dict[datetime, Ends] = {}

    def add(self, ends: Ends, now: datetime) -> None:
        if ends:
            minute = step_of(now)
            self._ends[minute] = added(self._ends.get(minute, Ends()), ends)

    def of(self, since: datetime, step: timedelta) -> list[Tally]:
        """Return the counts since the start of the step in which this instant is."""
        found: dict[datetime, Ends] = {}
        for minute, ends in self._ends.items():
            if (at := step_of(minute, step)) >= step_of(since, step):
                found[at] = added(found.get(at, Ends()), ends)
        return [Tally(at, found[at]) for at in sorted(found)]

    def take(self, limit: int) -> tuple[Tally, ...]:
        """Return some counts, and forget them."""
        taken = sorted(self._ends)[:limit]
        return tuple(Tally(minute, self._ends.pop(minute)) for minute in taken)

    def put(self, tallies: Iterable[Tally]) -> None:
        for tally in tallies:
            self.add(tally.ends, tally.at)

    def put_right(self, now: datetime) -> bool:
        """Count what ended later than now as of now. Returns True if there was any."""
        wrong = [minute for minute in self._ends if put_back(minute, now)]
        for minute in wrong:
            self.add(self._ends.pop(minute), now)
        return bool(wrong)

    def prune(self, now: datetime) -> None:
        self._ends = {minute: ends for minute, ends in self._ends.items() if minute > now - KEPT}
