"""``afterwards check`` for a fleet: whether one of its live processes would take each stored task."""

from collections.abc import Iterable, Sequence

from afterwards.client.steering import pages
from afterwards.core.problems import Problem, ProblemKind, Tally
from afterwards.core.routing import LiveWorker, Route, unserved
from afterwards.core.task import Task
from afterwards.engine import Engine
from afterwards.tasks.compatibility import UNFINISHED
from afterwards.worker.live_processes import live_workers


async def unserved_tasks(engine: Engine) -> list[Problem]:
    """Return the unfinished tasks that no live worker would take, by what workers announce. Changes nothing."""
    workers, tally = await live_workers(engine), Tally()
    async for page in pages(engine, UNFINISHED):
        tally.add(_problems(page, workers))
    return tally.problems


def _problems(tasks: Sequence[Task], workers: Sequence[LiveWorker]) -> Iterable[Problem]:
    reasons = unserved({Route(task.name, task.queue) for task in tasks}, workers)
    for task in tasks:
        if reason := reasons.get(Route(task.name, task.queue)):
            yield Problem(name=task.name, what=ProblemKind.WORKER, reason=reason, count=1, example=task.id)
