"""Run what is due here and now, without a worker: for tests."""

from collections.abc import Callable
from datetime import datetime, timedelta

from afterwards.core.lifecycle import Raised
from afterwards.core.task import State
from afterwards.engine import Claim, Engine
from afterwards.worker.attempt import Surroundings, Tell, attempt, settle, tell_plainly
from afterwards.worker.context import TaskContext
from afterwards.worker.runnable import Functions

LEASE = timedelta(hours=1)


async def run_due(
    engine: Engine, functions: Functions, surroundings: Surroundings, *, tell: Tell, clock: Callable[[], datetime]
) -> list[BaseException]:
    """Run tasks one by one until none is due. Returns what those raised that have failed for good, in that order."""
    failures: list[BaseException] = []
    claim = Claim(worker="inline", limit=1, lease=LEASE, names=functions.names(), limits=functions.limits())
    while tasks := await engine.claim(claim):
        for task in tasks:
            function = functions.get(task.name)
            context = TaskContext(function, task)
            outcome = await attempt(function, task, surroundings, context)
            settled, told = settle(function, context, outcome, worker=claim.worker, now=clock(), tell=tell)
            await engine.finish([settled])
            if told:
                await tell_plainly(function, told, surroundings.threads)
            if isinstance(outcome, Raised) and settled.state is State.FAILED:
                failures.append(outcome.error)
    return failures
