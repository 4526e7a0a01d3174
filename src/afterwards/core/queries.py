"""The query for a list of tasks, and the counts of a whole store."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from afterwards.core.task import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A filter for a list of tasks, newest first. None means any.

    ``before`` continues below a listed task. Below an id that no stored task has, there are no tasks.
    """

    states: frozenset[State] | None = None
    names: frozenset[str] | None = None
    queues: frozenset[str] | None = None
    before: str | None = None
    idempotency_keys: frozenset[str] | None = None
    text: str | None = None  # in the task, by the rule of ``core.search``
    since: datetime | None = None  # finished at this instant or later; tasks that have not finished: added then
    behind: str | None = None  # only tasks that come directly after this one
    set_aside: bool = False  # only tasks that are set aside
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The number of tasks in each queue and state, and the longest wait of a claimable one."""

    counts: Mapping[tuple[str, State], int]  # by queue and state, without zeros
    oldest: timedelta | None  # time since the first of them became claimable, as in ``unroutable``; paused ones count

    @property
    def by_state(self) -> dict[State, int]:
        """The number of tasks in each state in which there are any."""
        counts: dict[State, int] = {}
        for (_, state), count in self.counts.items():
            counts[state] = counts.get(state, 0) + count
        return counts

    @property
    def by_queue(self) -> dict[str, dict[State, int]]:
        """The number of tasks in each queue and state in which there are any."""
        counts: dict[str, dict[State, int]] = {}
        for (queue, state), count in self.counts.items():
            counts.setdefault(queue, {})[state] = count
        return counts
