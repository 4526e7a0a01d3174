"""What one enqueue stores, in memory."""

from collections import ChainMap
from collections.abc import Iterable
from dataclasses import replace

from afterwards.core.errors import QueueFull
from afterwards.core.task import NewTask, Task


class Storing:
    """What one enqueue stores: looked at together with what is stored already."""

    def __init__(self, tasks: dict[str, Task], aliases: dict[str, str]) -> None:
        self.tasks = ChainMap[str, Task]({}, tasks)
        self.aliases = ChainMap[str, str]({}, aliases)
        self._after: dict[str, str | None] = {}  # what those came after that were answered

    def wanted(self, new: NewTask) -> NewTask | None:
        """The task to be stored, None if it is stored, or another one stands for it."""
        if self.aliases.get(new.id, new.id) in self.tasks:
            return None
        after = new.after
        while new.chained and after is not None and after in self._after:
            after = self._after[after]
        after = after and self.aliases.get(after, after)
        twin = self._twin(new)
        if twin:
            self.aliases[new.id] = twin.id
            self._after[new.id] = after
            return None
        return replace(new, after=after)

    def _twin(self, new: NewTask) -> Task | None:
        """The task that there shall be no other one like."""
        if new.idempotency_key is not None:
            for task in self.tasks.values():
                if task.idempotency_key == new.idempotency_key:
                    return task
        return next(iter(unfinished(self.tasks.values(), new.unique_key)), None) if new.unique_key else None


def refuse_full(tasks: Iterable[NewTask], storing: Storing) -> None:
    """Raise QueueFull if a queue would have more that waits than one of the tasks allows."""
    added, before = storing.tasks.maps[0], storing.tasks.maps[1]
    allowed = {new.queue: new.max_queued for new in tasks if new.max_queued is not None and new.id in added}
    for queue, most in allowed.items():
        pending = (task for task in before.values() if task.state.pending and task.set_aside is None)
        waiting = sum(1 for task in pending if task.queue == queue)
        if waiting + sum(1 for task in added.values() if task.queue == queue) > most:
            raise QueueFull(queue, most)


def unfinished(tasks: Iterable[Task], unique_key: str) -> list[Task]:
    return [task for task in tasks if task.unique_key == unique_key and not task.state.finished]
