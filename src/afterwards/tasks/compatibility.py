"""``tasks.check()``: check before a deploy whether this process's code can run the stored tasks."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from afterwards.client.client import Client
from afterwards.core.errors import UnknownFunction
from afterwards.core.problems import Problem, ProblemKind, Tally
from afterwards.core.task import FINISHED, State, Task
from afterwards.engine import Engine, Query
from afterwards.execution.decoding import misfits
from afterwards.tasks.registry import registry

PAGE = 1000
UNFINISHED = Query(states=frozenset(State) - FINISHED, limit=PAGE)


async def check(client: Client) -> list[Problem]:
    """Return the problems that prevent this process from running stored, unfinished tasks. Changes nothing."""
    tally = Tally()
    async for page in _pages(await client.open()):
        for task in page:
            tally.add(_problems(task))
    return tally.problems


async def _pages(engine: Engine) -> AsyncIterator[Sequence[Task]]:
    page = await engine.find(UNFINISHED)
    while page:
        yield page
        page = await _below(engine, page)


async def _below(engine: Engine, page: Sequence[Task]) -> list[Task]:
    """Return the page after this one. If its last task was pruned meanwhile, continue after an earlier one."""
    for last in reversed(page):
        found = await engine.find(replace(UNFINISHED, before=last.id))
        if found or await engine.get([last.id]):
            return found
    return []


def _problems(task: Task) -> list[Problem]:
    if task.unreadable is not None:
        return [_problem(task, ProblemKind.RECORD, task.unreadable)]
    try:
        function = registry.get(task.name)
    except UnknownFunction:
        return [_problem(task, ProblemKind.NAME, "no task function has this name or alias")]
    return [_problem(task, misfit.what, misfit.reason) for misfit in misfits(function, task)]


def _problem(task: Task, what: ProblemKind, reason: str) -> Problem:
    return Problem(name=task.name, what=what, reason=reason, count=1, example=task.id)
