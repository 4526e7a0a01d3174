"""One task: what was asked, how each attempt ended, and what comes after it."""

from dataclasses import dataclass

from afterwards.core.record import TaskRecord
from afterwards.core.task import State, Task
from afterwards.dashboard.pages.acts import ActWords, acts_on
from afterwards.dashboard.pages.json_tree import Node, tree
from afterwards.dashboard.pages.timeline import Event, timeline
from afterwards.engine import Engine, Query

MOST_BEHIND = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPage:
    """The values for the template."""

    task: TaskRecord
    arguments: list[Node]
    result: Node | None
    events: list[Event]
    before: TaskRecord | None
    behind: list[TaskRecord]
    more_behind: bool

    @property
    def acts(self) -> list[ActWords]:
        return acts_on(self.task)


async def task_page(engine: Engine, id: str) -> TaskPage | None:
    """Read the page, or return None if no such task is stored: two calls of the engine, three in a chain."""
    found = await engine.get([id])
    if not found:
        return None
    [task] = found
    before = await engine.get([task.after]) if task.after else []
    behind = await engine.find(Query(behind=task.id, limit=MOST_BEHIND + 1))
    record = TaskRecord.of(task, shown=True)
    return TaskPage(
        task=record,
        arguments=[tree(value, name) for name, value in record.arguments.items()],
        result=tree(record.result) if task.state is State.SUCCEEDED else None,
        events=timeline(record),
        before=_first(before),
        behind=[TaskRecord.of(one, shown=True) for one in behind[:MOST_BEHIND]],
        more_behind=len(behind) > MOST_BEHIND,
    )


def _first(tasks: list[Task]) -> TaskRecord | None:
    return TaskRecord.of(tasks[0], shown=True) if tasks else None
