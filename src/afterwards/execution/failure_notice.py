"""Notify the ``on_failure`` of a task function that a task has failed for good."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from afterwards import telemetry
from afterwards.core.redaction import redactor_of
from afterwards.core.settling import Settled
from afterwards.core.task import FailedTask, NewTask, State, Task
from afterwards.execution.awaitables import awaited
from afterwards.execution.cancellation import is_own_cancellation
from afterwards.execution.function import Runnable
from afterwards.execution.threads import Threads

MakeNotice = Callable[[Runnable, FailedTask], NewTask | None]
"""Make the task that reports a final failure, if ``on_failure`` is a task function."""


def with_notice(
    function: Runnable, task: Task, settled: Settled, make_notice: MakeNotice
) -> tuple[Settled, FailedTask | None]:
    """Return a final failure with the task that reports it, or with the value for a plain ``on_failure``."""
    if settled.state is not State.FAILED or settled.failure is None or function.on_failure is None:
        return settled, None
    failed = FailedTask.of(task, redactor_of(task).failure(settled.failure))  # it is mailed, posted, and stored
    try:
        notice = make_notice(function, failed)
    except BaseException as error:  # `on_failure` does not accept its argument
        telemetry.notice_failed(task.name, task.id, error)
        return settled, None
    return (settled, failed) if notice is None else (replace(settled, then=notice), None)


async def call_on_failure(function: Runnable, failed: FailedTask, threads: Threads) -> None:
    """Call a plain ``on_failure``. An exception is only logged: the task's failure is already stored."""
    if error := await error_of_on_failure(function, failed, threads):
        telemetry.notice_failed(failed.name, failed.id, error)


async def error_of_on_failure(function: Runnable, failed: FailedTask, threads: Threads) -> BaseException | None:
    """Call a plain ``on_failure``, and return its exception."""
    told = function.on_failure
    assert told is not None
    try:
        if inspect.iscoroutinefunction(told):
            await awaited(await told(failed))
        else:
            await awaited(await threads.run(partial(told, failed)))
    except BaseException as error:  # user code
        if is_own_cancellation(error):
            raise
        return error
    return None
