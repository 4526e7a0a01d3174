"""Say in words why a task has not finished yet."""

from collections.abc import Sequence
from datetime import datetime

from afterwards.core.claim import Paused
from afterwards.core.routing import LiveWorker, Route, unserved
from afterwards.core.task import State, Task


def standing(task: Task, paused: Paused, workers: Sequence[LiveWorker]) -> str:
    """Return where an unfinished task stands and what it waits for. ``workers`` are those that live.

    The words end a sentence that begins with the task: "is queued, and no worker lives".
    """
    where = f"is {task.state}"
    if task.set_aside is not None:
        return f"{where} and set aside: {task.set_aside}"
    match task.state:
        case State.WAITING:
            return f"{where} until task {task.after} has succeeded"
        case State.SCHEDULED:
            again = "for another attempt after a failure, " if task.retrying else ""
            return f"{where} {again}until {_instant(task.run_at)}"
        case State.RUNNING:
            asked = "" if task.cancel_requested is None else ", and was asked to stop"
            return f"{where}, since {_instant(task.started_at)} in attempt {task.attempt}{asked}"
    if task.name in paused.names:
        return f"{where}, and {task.name} is paused"
    if task.queue in paused.queues:
        return f"{where}, and its queue {task.queue} is paused"
    route = Route(task.name, task.queue)
    reason = unserved([route], [worker for worker in workers if not worker.has_left]).get(route)
    return f"{where}, and {reason or 'waits for a free slot of a worker'}"


def _instant(at: datetime | None) -> str:
    return "its time" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"
