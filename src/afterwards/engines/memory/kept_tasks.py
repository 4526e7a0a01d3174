"""The tasks in memory, and what decides whether they may start."""

from collections.abc import Callable, Iterable
from datetime import datetime

from afterwards.core.claim import Paused
from afterwards.core.limits import UNLIMITED
from afterwards.core.task import State, Task
from afterwards.engines.memory.kept import Kept
from afterwards.engines.memory.starts import Starts
from afterwards.engines.memory.tallies import KeptTallies
from afterwards.engines.memory.tasks import Tasks
from afterwards.engines.wakeup import Wakeup


class KeptTasks(Kept):
    """The tasks with their aliases, the pauses, the starts that count against a rate, and the ends of each minute."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        super().__init__(clock=clock)
        self._tasks = Tasks()
        self._aliases: dict[str, str] = {}  # ids of calls that a uniqueness rule answered
        self._starts = Starts()
        self._tallies = KeptTallies()
        self._paused = Paused()
        self._wakeup = Wakeup()

    def _put(self, tasks: Iterable[Task], now: datetime) -> None:
        """Store tasks with their new values, and wake workers that may claim one now."""
        for task in tasks:
            self._tasks.put(task, now)
            # The next due task may be due earlier. The limit of a changed task may have kept other tasks waiting.
            claimable = task.state in (State.QUEUED, State.SCHEDULED) and task.set_aside is None
            if claimable or (task.limit_key != UNLIMITED and task.state is not State.RUNNING):
                self._wakeup.set()

    def _get(self, ids: Iterable[str]) -> list[Task]:
        return [self._tasks.by_id[id] for id in map(self._resolved, ids) if id in self._tasks.by_id]

    def _resolved(self, id: str) -> str:
        return self._aliases.get(id, id)
