"""Run due tasks one by one while the caller waits, for tests."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from afterwards.core.options import Options
from afterwards.core.settling import Outcome, Raised, Settled
from afterwards.core.task import FailedTask, NewTask, State, Task
from afterwards.engine import Claim, Engine, Heartbeat
from afterwards.execution.attempt import attempt
from afterwards.execution.context import TaskContext
from afterwards.execution.failure_notice import MakeNotice, error_of_on_failure
from afterwards.execution.fresh_context import FreshContexts
from afterwards.execution.function import Functions, Runnable
from afterwards.execution.settling import settle
from afterwards.execution.surroundings import Surroundings
from afterwards.worker.maintenance import Maintenance

WORKER = "inline"
LEASE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A point of an attempt at which its process may crash."""

    function: Runnable
    task: Task
    outcome: Outcome | None = None  # None before the function is called, then the outcome, not recorded yet


CrashesAt = Callable[[CrashPoint], bool]
"""Decides whether the process crashes at a point. It is called once before the function and once after."""


class InlineWorker:
    """Runs tasks one by one. Each attempt begins in a context of its own, as in a worker."""

    def __init__(
        self,
        engine: Engine,
        functions: Functions,
        surroundings: Surroundings,
        contexts: FreshContexts,
        *,
        running: set[str],
        make_notice: MakeNotice,
        clock: Callable[[], datetime],
        crashes: CrashesAt,
        allow_retries: bool,
    ) -> None:
        self._engine = engine
        self._functions = functions
        self._surroundings = surroundings
        self._contexts = contexts
        self._running = running  # the ids of tasks that run now, for this worker or another one
        self._make_notice = make_notice
        self._clock = clock
        self._crashes = crashes
        self._allow_retries = allow_retries
        self._to_tell: list[tuple[Runnable, FailedTask]] = []  # the calls of a plain `on_failure` to be made
        self._failures: list[BaseException] = []
        self._awaited: str | None = None
        self._maintenance = Maintenance(
            engine,
            functions,
            Options(),
            make_notice=self._notice,
            notify=lambda *failure: self._to_tell.append(failure),
            clock=clock,
            waits_for_renewals=False,
        )

    async def run_due(self, until: str | None = None) -> list[BaseException]:
        """Run tasks until none is due. Returns the exceptions of ``on_failure``, then those of attempts.

        With ``allow_retries`` it returns exceptions of attempts only if their tasks have finally failed. It ends sooner
        when the task ``until`` has finished. If that has failed, its exception is not returned: its caller gets it.
        """
        self._awaited = until
        claim = Claim(worker=WORKER, limit=1, lease=LEASE, names=self._functions.names)  # the clock stands still
        while not await self._has_finished(until) and (tasks := await self._engine.claim(claim)):
            for task in tasks:
                self._running.add(task.id)
                try:
                    await self._apart(self._run(task))
                finally:
                    self._running.discard(task.id)
                while self._to_tell:
                    await self._apart(self._tell(*self._to_tell.pop()))
        return self._failures

    async def _has_finished(self, id: str | None) -> bool:
        return id is not None and any(task.state.finished for task in await self._engine.get([id]))

    async def _apart(self, doing: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in a fresh context. If the caller is cancelled, so is the coroutine."""
        await asyncio.get_running_loop().create_task(doing, context=self._contexts.fresh())

    async def _run(self, task: Task) -> None:
        function = self._functions.get(task.name)
        context = TaskContext(function, task)
        outcome = await self._survived(CrashPoint(function, task), context)
        if outcome is None:
            await self._lose(task)
            return
        settled, failed = settle(
            function,
            task,
            outcome,
            worker=WORKER,
            clock=self._clock,
            make_notice=self._notice,
            progress=context.progress(),
            logs=context.logs.lines(),
        )
        await self._engine.finish([settled])
        told = settled.state is State.FAILED and task.id == self._awaited
        if isinstance(outcome, Raised) and not told and _is_shown(outcome, settled, self._allow_retries):
            self._failures.append(_noted(outcome.error, settled))
        if failed:
            self._to_tell.append((function, failed))

    async def _survived(self, start: CrashPoint, context: TaskContext) -> Outcome | None:
        """Return the outcome of an attempt, None if its process crashed in it."""
        if self._crashes(start):
            return None
        outcome = await attempt(start.function, start.task, self._surroundings, context)
        return None if self._crashes(CrashPoint(start.function, start.task, outcome)) else outcome

    async def _lose(self, task: Task) -> None:
        """Reclaim a task at once, as other workers do for a dead one when its lease has ended."""
        await self._engine.heartbeat([Heartbeat(task.lease)], lease=timedelta())
        await self._maintenance.reclaim()

    async def _tell(self, function: Runnable, failed: FailedTask) -> None:
        """Call a plain ``on_failure``."""
        if error := await error_of_on_failure(function, failed, self._surroundings.threads):
            self._on_failure_raised(error, failed)

    def _notice(self, function: Runnable, failed: FailedTask) -> NewTask | None:
        try:
            return self._make_notice(function, failed)
        except BaseException as error:  # `on_failure` does not accept its argument
            self._on_failure_raised(error, failed)
            raise

    def _on_failure_raised(self, error: BaseException, failed: FailedTask) -> None:
        """Put an exception of ``on_failure`` before those of attempts: a test that expects those would hide it."""
        _note(error, f"(the on_failure function of {failed.name} raised this when told: {failed.message})")
        self._failures.insert(0, error)


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
    if settled.state is State.SCHEDULED:
        _note(error, _RETRIED)
    return error


def _note(error: BaseException, note: str) -> None:
    with suppress(TypeError, AttributeError):  # the exception's notes are of another type
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


_RETRIED = (
    "(a worker would retry this task. To test that, use `with afterwards.testing.allow_retries():`, "
    "and `drain(scheduled=True)` in it to run the retries)"
)
