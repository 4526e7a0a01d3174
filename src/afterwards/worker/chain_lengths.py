"""How far along its chain a task is, as far as this worker has seen."""

from collections import OrderedDict

from afterwards.core.task import Task

LONG_CHAIN = 3
"""From its third task on, a chain is taken for a long one: most requests add one or two tasks."""

MOST_REMEMBERED = 1000
"""Chains whose last task is remembered."""


class ChainLengths:
    """Counts the tasks of chains that have run here one after the other. Costs nothing for tasks behind none."""

    def __init__(self) -> None:
        self._counted: OrderedDict[str, int] = OrderedDict()  # by the id of the last task that ended here

    def is_long(self, task: Task) -> bool:
        """Note that a task has ended. Returns whether another one probably waits for it: many have come before."""
        if task.after is None:
            return False
        count = self._counted[task.id] = self._counted.pop(task.after, 1) + 1
        if len(self._counted) > MOST_REMEMBERED:
            self._counted.popitem(last=False)
        return count >= LONG_CHAIN
