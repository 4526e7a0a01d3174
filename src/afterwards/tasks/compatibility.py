"""``tasks.check()``: check before a deploy whether this process's code can run the stored tasks."""

import asyncio
from collections.abc import Collection
from dataclasses import replace

from afterwards import telemetry
from afterwards.client.client import Client
from afterwards.client.steering import pages
from afterwards.core.errors import UnknownFunction
from afterwards.core.problems import Problem, ProblemKind, Tally
from afterwards.core.task import FINISHED, State, Task
from afterwards.engine import Engine, Query
from afterwards.execution.decoding import misfits
from afterwards.tasks.registry import registry
from afterwards.worker.live_processes import live_workers

PAGE = 1000
"""Tasks that are read at once: each page costs a look at all queued ones, of which it has the newest."""

UNFINISHED = Query(states=frozenset(State) - FINISHED, limit=PAGE)

PIECE = 100
"""Tasks that a worker checks in one turn of its event loop: no request waits long for it."""

PAUSE = 0.05
"""Seconds between two pieces. A worker that starts with many tasks waiting runs them meanwhile, at almost full speed:
what has run before it is reached is not read."""

MOST_CHECKED = 10_000
"""The newest unfinished tasks, which a worker checks when it starts."""


async def check(client: Client) -> list[Problem]:
    """Return the problems that prevent this process from running stored, unfinished tasks. Changes nothing."""
    tally = Tally()
    async for page in pages(await client.open(), UNFINISHED):
        for task in page:
            tally.add(_problems(task))
    return tally.problems


async def check_at_start(client: Client) -> None:
    """Log which stored tasks this worker's code could not run, of its queues. It looks at the newest ones only.

    Functions that another live worker knows are left out: several applications may share a store.
    """
    engine, tally, checked = await client.open(), Tally(), 0
    async for page in pages(engine, replace(UNFINISHED, queues=client.options.queues)):
        for begin in range(0, len(page), PIECE):
            if checked:
                await asyncio.sleep(PAUSE)
            some = page[begin : begin + PIECE]
            for task in some:
                tally.add(_problems(task))
            checked += len(some)
        if checked >= MOST_CHECKED:
            break
    for problem in await _left_to_nobody(engine, tally.problems):
        telemetry.cannot_run(problem)


async def _left_to_nobody(engine: Engine, problems: Collection[Problem]) -> list[Problem]:
    """Return the problems without those of functions that another live worker knows."""
    if not any(problem.what is ProblemKind.NAME for problem in problems):
        return [*problems]
    known = {name for worker in await live_workers(engine) for name in worker.names}
    return [problem for problem in problems if problem.what is not ProblemKind.NAME or problem.name not in known]


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
