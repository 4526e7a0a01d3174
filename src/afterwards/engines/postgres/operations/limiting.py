"""The room that limits leave to a claim."""

from collections import Counter
from collections.abc import Iterable, Sequence

from afterwards.core import limits
from afterwards.core.limits import Group, Room
from afterwards.core.task import Task
from afterwards.engine import Claim
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.operations import storing
from afterwards.engines.postgres.rows import as_json, recordset
from afterwards.engines.postgres.work import Operation, Work, change, fetch

RUNNING = """
    SELECT name, limit_key, count(*) FROM afterwards_tasks WHERE state = 'running' AND name = ANY (%s::text[])
    GROUP BY name, limit_key
"""

STARTS = f"""
    SELECT wanted.name, wanted.limit_key, s.at
    FROM {recordset("wanted", ["name", "limit_key"], since="bigint")}
    JOIN afterwards_starts s ON s.name = wanted.name AND s.limit_key = wanted.limit_key AND s.at > wanted.since
    ORDER BY s.at
"""

INSERT_STARTS = f"""
    INSERT INTO afterwards_starts (name, limit_key, at, until)
    SELECT name, limit_key, at, until FROM {recordset("new", ["name", "limit_key"], at="bigint", until="bigint")}
"""


class Rooms:
    """The room that the limits of one claim leave.

    Claims of one function's tasks take turns if it has limits: what one reads here stays true until its commit, but for
    tasks that end meanwhile.
    """

    def __init__(self, work: Work, claim: Claim) -> None:
        self.known: dict[Group, Room] = {}
        self._work = work
        self._claim = claim
        self._limits = limits.by_group(claim.limits)
        self._running: Counter[Group] | None = None
        self._starts: dict[Group, list[int]] = {}

    def group(self, name: str, limit_key: str) -> Group:
        return limits.group_of(name, limit_key, self._claim.limits)

    def lock(self, names: Iterable[str]) -> Operation[None]:
        """Wait for the other claims of those of these functions' tasks that have limits."""
        if counted := {self.group(name, "")[0] for name in names if name in self._claim.limits}:
            yield from storing.lock(self._work, "limit", counted)

    def load(self, tasks: Iterable[tuple[str, str]]) -> Operation[None]:
        """Load the room of the groups of these tasks, given by name and limit key."""
        groups = {self.group(name, key) for name, key in tasks if name in self._claim.limits} - self.known.keys()
        if not groups:
            return
        if self._running is None:
            yield from self._load_running()
        rated = [(group, rate.per) for group in groups if (rate := self._limits[group[0]].rate)]
        if rated:
            wanted = as_json(
                {"name": name, "limit_key": key, "since": self._work.after(-per)} for (name, key), per in rated
            )
            for name, key, at in (yield from fetch(STARTS, wanted)):
                self._starts.setdefault((name, key), []).append(at)
        self.known |= self._rooms(groups)

    def note(self, taken: Sequence[Task]) -> Operation[None]:
        """Remember which tasks were started."""
        groups = [(task.name, self.group(task.name, task.limit_key)) for task in taken]
        starts = limits.starts(groups, self._claim.limits, self._work.now)
        if starts:
            began = (
                {
                    "name": one.group[0],
                    "limit_key": one.group[1],
                    "at": rows.from_instant(one.at),
                    "until": rows.from_instant(one.until),
                }
                for one in starts
            )
            yield from change(INSERT_STARTS, as_json(began))
        for one in starts:
            self._starts.setdefault(one.group, []).append(rows.from_instant(one.at))
        if self._running is not None:
            self._running.update(group for _, group in groups)
        self.note_next()

    def note_next(self) -> None:
        """Have workers look again when a used-up rate leaves room."""
        self._work.room_at = limits.next_room(self._rooms(self.known).values())

    def _load_running(self) -> Operation[None]:
        """Count the running tasks of all functions with limits, also those stored under another name."""
        self._running = Counter()
        for name, key, count in (yield from fetch(RUNNING, sorted({*self._claim.limits, *self._limits}))):
            self._running[self.group(name, key)] += count

    def _rooms(self, groups: Iterable[Group]) -> dict[Group, Room]:
        began = {group: [*map(rows.to_instant, starts)] for group, starts in self._starts.items()}
        return limits.rooms(groups, self._claim.limits, self._running or {}, began, self._work.now)
