"""The starts of tasks whose functions have a rate."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from itertools import islice

from afterwards.core import limits
from afterwards.core.claim import Claim
from afterwards.core.limits import Group, Room
from afterwards.core.task import Task


class Starts:
    """The starts that count against a rate, by group, the oldest first."""

    def __init__(self) -> None:
        self._starts: dict[Group, list[limits.Start]] = {}

    def add(self, taken: Iterable[Task], claim: Claim, now: datetime) -> None:
        """Remember the tasks that a claim has taken, if their functions have a rate."""
        groups = ((task.name, group_of(task, claim)) for task in taken)
        for start in limits.starts(groups, claim.limits, now):
            self._starts.setdefault(start.group, []).append(start)

    def put(self, starts: Iterable[limits.Start]) -> None:
        """Add starts that another engine has remembered."""
        for start in starts:
            self._starts.setdefault(start.group, []).append(start)
            self._starts[start.group].sort(key=lambda start: start.at)

    def take(self, limit: int) -> tuple[limits.Start, ...]:
        """Remove some starts, and return them."""
        taken = tuple(islice((start for starts in self._starts.values() for start in starts), limit))
        for start in taken:
            self._starts[start.group].remove(start)
        return taken

    def rooms(self, groups: Iterable[Group], running: Iterable[Task], claim: Claim, now: datetime) -> dict[Group, Room]:
        """Return the room that each group's limit leaves."""
        if not claim.limits:
            return {}
        counts = Counter(group_of(task, claim) for task in running)
        began = {group: [start.at for start in starts] for group, starts in self._starts.items()}
        return limits.rooms(groups, claim.limits, counts, began, now)

    def prune(self, now: datetime) -> None:
        """Forget the starts that count no longer."""
        kept = {group: [start for start in starts if start.until > now] for group, starts in self._starts.items()}
        self._starts = {group: starts for group, starts in kept.items() if starts}


def group_of(task: Task, claim: Claim) -> Group:
    return limits.group_of(task.name, task.limit_key, claim.limits)
