"""The room that limits leave to a claim. Every function runs in a transaction that others share."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from afterwards.core import limits
from afterwards.core.limits import Group, Limit, Room, Used
from afterwards.core.task import Task
from afterwards.engine import Claim
from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.shapes import LATEST

RUNNING = """
    SELECT name, limit_key, count(*) FROM afterwards_tasks INDEXED BY afterwards_running WHERE state = 'running'
    GROUP BY name, limit_key
"""

STARTS = "SELECT at FROM afterwards_starts WHERE name = ? AND limit_key = ? AND at > ? ORDER BY at"

INSERT_STARTS = "INSERT INTO afterwards_starts (name, limit_key, at, until) VALUES {rows}"


class Rooms:
    """The room that the limits of one claim leave, looked up when a task would count against them."""

    def __init__(self, connection: Connection, claim: Claim) -> None:
        self.known: dict[Group, Room] = {}
        self._connection = connection
        self._by_name = claim.limits
        self._limits = limits.by_group(claim.limits) if claim.limits else {}

    def group(self, name: str, limit_key: str) -> Group:
        return limits.group_of(name, limit_key, self._by_name)

    def look_up(self, group: Group) -> None:
        """Look up the room of a group, unless it is known or the group has no limit."""
        limit = self._limits.get(group[0])
        if limit is not None and group not in self.known:
            self.known[group] = self._room(group, limit)

    def left(self, group: Group, most: int) -> int:
        """Return how many tasks of a group may start now, at most ``most``."""
        self.look_up(group)
        count = self.known[group].count if group in self.known else None
        return most if count is None else min(most, count)

    def note(self, taken: Sequence[Task]) -> None:
        """Remember which tasks were started, and when a used-up rate leaves room again."""
        if self._limits:
            groups = [(task.name, self.group(task.name, task.limit_key)) for task in taken]
            starts = limits.starts(groups, self._by_name, self._connection.now)
            began = [(*one.group, rows.from_instant(one.at), rows.from_instant(one.until)) for one in starts]
            many.insert(self._connection, INSERT_STARTS, began)
        self.__dict__.pop("_running", None)  # the number of running tasks has changed
        after = [self._room(group, self._limits[group[0]]) for group in self.known]
        self._connection.room_at = limits.next_room(after)

    def _room(self, group: Group, limit: Limit) -> Room:
        starts: list[int] = []
        if limit.rate:
            since = self._connection.instant - rows.from_span(limit.rate.per)
            found = self._connection.execute(STARTS, (*group, since)).fetchall()
            starts = [at for [at] in found if isinstance(at, int) and at <= LATEST]
        used = Used(self._running[group], [rows.to_instant(at) for at in starts])
        return limits.room(limit, used, self._connection.now)

    @cached_property
    def _running(self) -> Counter[Group]:
        running: Counter[Group] = Counter()
        for name, limit_key, count in self._connection.execute(RUNNING):
            running[self.group(name, limit_key)] += count
        return running
