"""Track how many tasks of a chain have run in this worker."""

from collections import OrderedDict

from afterwards.core.task import Task

LONG_CHAIN = 3
"""A chain counts as long from its third task on: most requests add one or two tasks."""

MOST_REMEMBERED = 1000
"""Number of chains whose last task is remembered."""


class ChainLengths:
    """Counts the tasks of each chain that have run here in sequence. Costs nothing for tasks without a predecessor."""

    def __init__(self) -> None:
        self._counted: OrderedDict[str, int] = OrderedDict()  # by the id of the last task that ended here

    def is_long(self, task: Task) -> bool:
        """Record that a task has ended. Return whether another one probably waits for it, because the chain is long."""
        if task.after is None:
            return False
        count = self._counted[task.id] = self._counted.pop(task.after, 1) + 1
        if len(self._counted) > MOST_REMEMBERED:
            self._counted.popitem(last=False)
        return count >= LONG_CHAIN
