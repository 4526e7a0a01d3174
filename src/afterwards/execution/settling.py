"""Decide the next state of a task after an attempt, in every case, and log it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from random import random

from afterwards import telemetry
from afterwards.core import settling
from afterwards.core.progress import Progress
from afterwards.core.retry import Retry
from afterwards.core.settling import Outcome, Raised, Settled, Succeeded
from afterwards.core.task import FailedTask, LogLine, Task
from afterwards.execution.failure_notice import MakeNotice, with_notice
from afterwards.execution.function import Runnable, options_of


def settle(
    function: Runnable,
    task: Task,
    outcome: Outcome,
    *,
    worker: str,
    clock: Callable[[], datetime],
    make_notice: MakeNotice,
    progress: Progress | None = None,
    logs: Sequence[LogLine] = (),
) -> tuple[Settled, FailedTask | None]:
    """Return how the attempt settles its task, and the value for a plain ``on_failure`` once stored. Never raises."""
    try:
        settled, failed_task = _settled(function, task, outcome, worker, clock, make_notice)
        return _described(settled, progress, logs), failed_task
    except BaseException as error:  # a bug of ours, or a user object that raises on any access
        telemetry.loop_broken("describe how a task ended", error)
        failed = Raised(error=RuntimeError(f"it ended with {type(outcome).__name__}, and the description of it failed"))
        settled = settling.settle(task, failed, Retry(), worker=worker, now=clock(), random=0)
        return _described(settled, None, logs), None


def _settled(
    function: Runnable,
    task: Task,
    outcome: Outcome,
    worker: str,
    clock: Callable[[], datetime],
    make_notice: MakeNotice,
) -> tuple[Settled, FailedTask | None]:
    if isinstance(outcome, Succeeded):
        settled = settling.succeed(task, outcome)
        telemetry.succeeded(task)
        return settled, None
    try:
        retry = options_of(function, task).retries
    except Exception:  # options of a later version: this code cannot interpret them, and no attempt was made
        retry = function.settings.retries
    settled = settling.settle(task, outcome, retry, worker=worker, now=clock(), random=random())
    telemetry.settled(task, settled, outcome.error if isinstance(outcome, Raised) else None, retry.times)
    return with_notice(function, task, settled, make_notice)


def _described(settled: Settled, progress: Progress | None, logs: Sequence[LogLine]) -> Settled:
    """Return how an attempt ended, with its last progress and what it logged. Most attempts have neither."""
    return settled if progress is None and not logs else replace(settled, progress=progress, logs=tuple(logs))
