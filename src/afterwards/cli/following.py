"""Follow a store: what runs now, and what has ended since the last look."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from afterwards.cli import times
from afterwards.client.steering import MOST_LISTED, Filter, listed, pages
from afterwards.core.routing import ALIVE
from afterwards.core.task import FINISHED, State, Task
from afterwards.engine import Engine

MOST_RUNNING = 200
"""Running tasks that are followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The result of one look."""

    running: Sequence[Task] = ()  # oldest first
    ended: Sequence[Task] = ()  # since the last look, in the order of their ends
    waiting_again: Sequence[Task] = ()  # ran at the last look, and will run again


class Following:
    """Finds what has changed between two looks, by the instants that the store's own clock has written."""

    def __init__(self, engine: Engine, chosen: Filter) -> None:
        self._engine = engine
        self._running_tasks = replace(chosen, states=frozenset({State.RUNNING}))
        self._ended_tasks = replace(chosen, states=FINISHED)
        self._since = times.now()
        self._known: set[tuple[str, int]] = set()  # ends at or after `since` that were found already
        self._ran: set[str] = set()

    async def begin(self) -> None:
        """Find out what has ended before, which is not shown."""
        self._since = await self._now()
        await self._ends()

    async def look(self) -> Look:
        running = (await listed(self._engine, self._running_tasks, limit=MOST_RUNNING)).tasks
        ended = await self._ends()
        gone = self._ran - {task.id for task in running} - {task.id for task in ended}
        self._ran = {task.id for task in running}
        left = await self._engine.get(sorted(gone)) if gone else []
        return Look(
            running=running[::-1], ended=ended, waiting_again=[task for task in left if task.state is State.SCHEDULED]
        )

    async def _now(self) -> datetime:
        """Return an instant that is not later than the store's now, whatever this host's clock says."""
        seen = [one.seen_at for one in await self._engine.workers(ALIVE) if one.seen_at]
        newest = [task.created_at for task in (await listed(self._engine, Filter(), limit=1)).tasks]
        return min([times.now(), *([max(seen + newest)] if seen + newest else [])]) - timedelta(seconds=1)

    async def _ends(self) -> list[Task]:
        """Return the tasks that have ended since the last call, in the order of their ends."""
        found: list[Task] = []
        async for page in pages(self._engine, replace(self._ended_tasks, since=self._since).query(limit=MOST_LISTED)):
            found += page
        ends = sorted(((task.finished_at or self._since), task.id, task) for task in found)
        new = [task for _, _, task in ends if (task.id, task.attempt) not in self._known]
        if ends:
            self._since = ends[-1][0]
        self._known = {(task.id, task.attempt) for at, _, task in ends if at >= self._since}
        return new
