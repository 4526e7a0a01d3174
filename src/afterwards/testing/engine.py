"""Where one test's tasks are kept."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from afterwards.core import lifecycle
from afterwards.core.schedule import StoredSchedule
from afterwards.core.task import NewTask, Task
from afterwards.engine import Claim
from afterwards.engines.memory import MemoryEngine


class EngineOfATest(MemoryEngine):
    """Remembers for when its tasks were asked, whatever became of them; its schedules are as old as the test."""

    def __init__(self, *, clock: Callable[[], datetime], begun: datetime) -> None:
        super().__init__(clock=clock)
        self._begun = begun
        self._asked_for: dict[str, datetime] = {}

    def asked_for(self, task: Task) -> datetime:
        """When a task was to start: attempts and retries have overwritten that in the task."""
        return self._asked_for.get(task.id, task.created_at)

    async def enqueue(self, tasks: Sequence[NewTask], *, claim: Claim | None = None) -> list[Task]:
        now = self._clock()
        stored = await super().enqueue(tasks, claim=claim)
        for new in tasks:
            self._asked_for.setdefault(new.id, lifecycle.asked_for(new, now))
        return stored

    async def register_schedules(self, expressions: Mapping[str, str]) -> list[StoredSchedule]:
        """As a worker would have done that started with the test."""
        return self._registered(expressions, self._begun)
