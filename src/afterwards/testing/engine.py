"""The in-memory engine of one test."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from afterwards.core import lifecycle
from afterwards.core.schedule import StoredSchedule
from afterwards.core.task import NewTask, Task
from afterwards.engine import Claim
from afterwards.engines.memory import MemoryEngine


class EngineOfATest(MemoryEngine):
    """A memory engine that remembers the requested start of each task. Its schedules begin with the test."""

    def __init__(self, *, clock: Callable[[], datetime], begun: datetime) -> None:
        super().__init__(clock=clock)
        self._begun = begun
        self._asked_for: dict[str, datetime] = {}

    def asked_for(self, task: Task) -> datetime:
        """Return the requested start of a task, which retries overwrite in the task itself."""
        return self._asked_for.get(task.id, task.created_at)

    async def enqueue(self, tasks: Sequence[NewTask], *, claim: Claim | None = None) -> list[Task]:
        now = self._clock()
        stored = await super().enqueue(tasks, claim=claim)
        for new in tasks:
            self._asked_for.setdefault(new.id, lifecycle.asked_for(new, now))
        return stored

    async def register_schedules(self, expressions: Mapping[str, str]) -> list[StoredSchedule]:
        """Register schedules as of the start of the test."""
        return self._registered(expressions, self._begun)
