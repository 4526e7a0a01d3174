"""Run due tasks one by one in the calling coroutine, for tests."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from afterwards.core.options import Options
from afterwards.core.settling import Outcome, Raised, Settled
from afterwards.core.task import FailedTask, State, Task
from afterwards.engine import Claim, Engine, Heartbeat
from afterwards.execution.attempt import attempt
from afterwards.execution.context import TaskContext
from afterwards.execution.failure_notice import MakeNotice, call_on_failure
from afterwards.execution.function import Functions, Runnable
from afterwards.execution.settling import settle
from afterwards.execution.surroundings import Surroundings
from afterwards.worker.maintenance import Maintenance

LEASE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A point of an attempt at which its process may crash."""

    function: Runnable
    task: Task
    outcome: Outcome | None = None  # None before the function is called, then the outcome, not recorded yet


CrashesAt = Callable[[CrashPoint], bool]
"""Decides whether the process crashes at a point. It is called once before the function and once after."""


async def run_due(
    engine: Engine,
    functions: Functions,
    surroundings: Surroundings,
    *,
    make_notice: MakeNotice,
    clock: Callable[[], datetime],
    crashes: CrashesAt,
    allow_retries: bool,
) -> list[BaseException]:
    """Run tasks one by one until none is due. Returns the exceptions of their attempts, in order.

    With ``allow_retries`` it returns only exceptions of tasks that have finally failed.
    """
    failures: list[BaseException] = []
    lost: list[tuple[Runnable, FailedTask]] = []
    maintenance = Maintenance(
        engine,
        functions,
        Options(),
        make_notice=make_notice,
        notify=lambda *failure: lost.append(failure),
        clock=clock,
        waits_for_renewals=False,
    )
    claim = Claim(worker="inline", limit=1, lease=LEASE, names=functions.names)  # one by one; the clock stands still
    while tasks := await engine.claim(claim):
        for task in tasks:
            function = functions.get(task.name)
            context = TaskContext(function, task)
            outcome = await _survived(CrashPoint(function, task), surroundings, context, crashes)
            if outcome is None:
                await _lose(engine, task, maintenance)
                while lost:
                    await call_on_failure(*lost.pop(), surroundings.threads)
                continue
            settled, failed = settle(
                function,
                task,
                outcome,
                worker=claim.worker,
                clock=clock,
                make_notice=make_notice,
                progress=context.progress(),
                logs=context.logs.lines(),
            )
            await engine.finish([settled])
            if failed:
                await call_on_failure(function, failed, surroundings.threads)
            if isinstance(outcome, Raised) and _is_shown(outcome, settled, allow_retries):
                failures.append(_noted(outcome.error, settled))
    return failures


def _is_shown(outcome: Raised, settled: Settled, allow_retries: bool) -> bool:
    """Return True if the exception is raised into the test. RetryAfter is not."""
    match settled.state:
        case State.FAILED:
            return True
        case State.SCHEDULED:
            return outcome.delay is None and not allow_retries
        case _:  # it was cancelled meanwhile
            return False


def _noted(error: BaseException, settled: Settled) -> BaseException:
    """Return the exception, with a note on how a test allows the retry that would follow."""
    if settled.state is State.SCHEDULED and _RETRIED not in getattr(error, "__notes__", ()):
        with suppress(TypeError, AttributeError):  # the exception's notes are of another type
            error.add_note(_RETRIED)
    return error


_RETRIED = (
    "(a worker would retry this task. To test that, use `with afterwards.testing.allow_retries():`, "
    "and `drain(scheduled=True)` in it to run the retries)"
)


async def _survived(
    start: CrashPoint, surroundings: Surroundings, context: TaskContext, crashes: CrashesAt
) -> Outcome | None:
    """Return the outcome of an attempt, None if its process crashed in it."""
    if crashes(start):
        return None
    outcome = await attempt(start.function, start.task, surroundings, context)
    return None if crashes(CrashPoint(start.function, start.task, outcome)) else outcome


async def _lose(engine: Engine, task: Task, maintenance: Maintenance) -> None:
    """Reclaim a task at once, as other workers do for a dead one when its lease has ended."""
    await engine.heartbeat([Heartbeat(task.lease)], lease=timedelta())
    await maintenance.reclaim()
