"""Run a task's function once, and return the outcome."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

from afterwards import telemetry
from afterwards.core.keywords import RunIn
from afterwards.core.settling import SUCCEEDED, Outcome, Raised, Released, SetAside, Succeeded
from afterwards.core.shortage import LongShortage, Shortage, beginning
from afterwards.core.task import FailureKind, Task
from afterwards.execution.awaitables import awaited, done, refuse_undone
from afterwards.execution.cancellation import is_being_cancelled
from afterwards.execution.context import Attempting, current
from afterwards.execution.decoding import Misfit, check_context, read_arguments, read_options
from afterwards.execution.dependencies import Cleanup
from afterwards.execution.files import opened
from afterwards.execution.function import Runnable
from afterwards.execution.outcomes import outcome_of_attempt
from afterwards.execution.propagation import restored
from afterwards.execution.surroundings import Surroundings
from afterwards.execution.threads import Threads
from afterwards.execution.timeouts import Deadline, judged
from afterwards.execution.tracebacks import users_traceback

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two tries to begin during a shortage: the first pause, and the longest."""

WAIT_ELSEWHERE = timedelta(seconds=10)
"""Delay of a task that is given back after the last try: another process may have the resource."""


def attempt(
    function: Runnable, task: Task, surroundings: Surroundings, attempting: Attempting
) -> Coroutine[Any, Any, Outcome]:
    """Run the function once. Never raises, but for the cancellation that the worker asked for."""
    run = _surrounded_attempt if task.context is not None or telemetry.has_tracer() else _attempt  # saves a coroutine
    return run(function, task, surroundings, attempting)


async def _surrounded_attempt(
    function: Runnable, task: Task, surroundings: Surroundings, attempting: Attempting
) -> Outcome:
    """Run an attempt within the trace and the context variables of its call."""
    outcome: Outcome | None = None
    try:
        check_context(task)
        with restored(task, surroundings.propagate):
            outcome = await _attempt(function, task, surroundings, attempting)
            if isinstance(outcome, Raised):
                telemetry.attempt_failed(task, outcome.error)
        return outcome
    except asyncio.CancelledError:
        raise
    except Misfit as misfit:
        return SetAside(str(misfit))
    except BaseException as error:  # the stored trace or variables cannot be read
        return outcome or Raised(error=error, kind=FailureKind.REFUSED, traceback=users_traceback(error))


async def _attempt(
    function: Runnable,
    task: Task,
    surroundings: Surroundings,
    attempting: Attempting,
    *,
    pause: float = FIRST_PAUSE,
) -> Outcome:
    try:
        values = read_arguments(function, task)
        settings = function.settings if task.overrides is None else read_options(function, task)
    except Misfit as misfit:
        return SetAside(str(misfit))
    before = current.set(attempting)
    try:
        if function.run_in is RunIn.PROCESS and surroundings.processes is not None:
            return await surroundings.processes.run(function, attempting.context)
        result = await _timed_call(function, values, surroundings, attempting, settings.timeout)
        if result is None:
            return SUCCEEDED
        if not done(result):
            result = await awaited(result)
        return SUCCEEDED if result is None else Succeeded(_stored_result(function, task, result))
    except Shortage as error:
        short = error
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        return Raised(error=error, traceback=users_traceback(error))
    except BaseException as error:  # whatever the user's function raises is its outcome
        return outcome_of_attempt(error)
    finally:
        current.reset(before)
    telemetry.short("start a task", short)
    if pause > LONGEST_PAUSE or isinstance(short, LongShortage):
        return Released(f"it could not start: {short}", begun=False, wait=WAIT_ELSEWHERE)
    await asyncio.sleep(pause)
    return await _attempt(function, task, surroundings, attempting, pause=2 * pause)


def _timed_call(
    function: Runnable,
    values: dict[str, Any],
    surroundings: Surroundings,
    attempting: Attempting,
    timeout: timedelta | None,
) -> Coroutine[Any, Any, Any]:
    if timeout is None:
        return _call(function, values, surroundings, attempting, None)
    deadline = Deadline(timeout)
    attempting.must_end_by(deadline)
    return deadline.within(_call(function, values, surroundings, attempting, deadline))


def _call(
    function: Runnable,
    values: dict[str, Any],
    surroundings: Surroundings,
    attempting: Attempting,
    deadline: Deadline | None,
) -> Coroutine[Any, Any, Any]:
    if function.codec.files:
        return _resolved_with_files(function, values, surroundings, attempting, deadline)
    if function.plan.injected:
        return _resolved(function, values, surroundings, attempting, deadline)
    return _called(function, values, surroundings.threads, deadline)  # the usual case


async def _resolved_with_files(
    function: Runnable,
    values: dict[str, Any],
    surroundings: Surroundings,
    attempting: Attempting,
    deadline: Deadline | None,
) -> Any:
    """Call the function with its files open. They are closed after its dependencies."""
    files, limiter = surroundings.files, surroundings.resolver.limiter
    codec = function.codec
    async with opened(values, codec.files, task=codec.task, files=files, limiter=limiter) as with_files:
        result = await _resolved(function, with_files, surroundings, attempting, deadline)
        return result if done(result) else await awaited(result)


async def _resolved(
    function: Runnable,
    values: dict[str, Any],
    surroundings: Surroundings,
    attempting: Attempting,
    deadline: Deadline | None,
) -> Any:
    """Call the function with its arguments and dependencies. The dependencies are closed after it."""
    for name in function.plan.contexts:
        values[name] = attempting.context
    if not function.plan.parameters:
        return await _called(function, values, surroundings.threads, deadline)
    async with Cleanup() as cleanup:
        with beginning("resolve its dependencies"):
            injected = await surroundings.resolver.solve(function.plan, cleanup, attempting)
        result = await _called(function, values | injected, surroundings.threads, deadline)
        return result if done(result) else await awaited(result)


def _called(
    function: Runnable, values: dict[str, Any], threads: Threads, deadline: Deadline | None
) -> Coroutine[Any, Any, Any]:
    args, kwargs = function.codec.spread(values)
    if function.is_async:
        coroutine: Coroutine[Any, Any, Any] = function.function(*args, **kwargs)
        return coroutine
    call = partial(function.function, *args, **kwargs)
    if deadline is not None:
        return _in_thread_within(deadline, call, threads)
    return threads.run(call, give_up_after=LONGEST_PAUSE)


async def _in_thread_within(deadline: Deadline, call: Callable[[], Any], threads: Threads) -> Any:
    """Call a function in a thread, whose time is counted in the thread: it may wait for one, and cannot be stopped."""
    with deadline.standing_still():
        return await threads.run(partial(judged, deadline.timeout, call), give_up_after=LONGEST_PAUSE)


def _stored_result(function: Runnable, task: Task, result: Any) -> str | None:
    """Return the result as JSON. A result that cannot be stored is logged, and the task still succeeds.

    Raises TypeError if some part of it is still to be awaited: its work is not done.
    """
    try:
        return function.results.dump(result)
    except BaseException as error:  # UnstorableResult, TooLarge, or what the user's serialiser raises
        refuse_undone(result, error)
        telemetry.result_not_stored(task, error)
        return None
