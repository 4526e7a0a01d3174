"""Log lines about attempts and their outcomes."""

import logging
from datetime import timedelta
from functools import partial

from afterwards.core.settling import Settled
from afterwards.core.task import FailureKind, State, Task
from afterwards.core.text import text_of, type_name
from afterwards.telemetry import writing
from afterwards.telemetry.metering import count_lost, count_refused
from afterwards.telemetry.store import set_aside
from afterwards.telemetry.writing import TASKS, described

once = partial(writing.once, logger=TASKS)
write = partial(writing.write, logger=TASKS)


def succeeded(task: Task) -> None:
    """Log a success at DEBUG."""
    if TASKS.isEnabledFor(logging.DEBUG):
        message = f"task succeeded: {task.name} ({task.id}), attempt {task.attempt}"
        write(logging.DEBUG, message, about=task, extra={"state": str(State.SUCCEEDED)})


def settled(task: Task, settled: Settled, error: BaseException | None, times: int) -> None:
    """Log one line for an attempt that did not succeed, with its traceback."""
    fields = {"state": str(settled.state)}
    about = f"{task.name} ({task.id}), attempt {task.attempt}"
    match settled.state:
        case State.SCHEDULED if error is not None:
            write(
                logging.WARNING,
                f"task raised {described(error)}: {about}; retry {settled.failed} of {times} "
                f"in {settled.wait.total_seconds():.1f} s",
                extra=fields,
                exc_info=error,
                about=task,
            )
        case State.FAILED:
            message = f"task failed: {about}: {described(error)}"
            write(logging.ERROR, message, extra=fields, exc_info=error, about=task)
        case State.CANCELLED:
            write(logging.INFO, f"task cancelled: {about}: {settled.reason}", extra=fields, about=task)
        case State.QUEUED if settled.set_aside is not None:
            set_aside(task.id, task.name, settled.set_aside, extra=fields | {"attempt": task.attempt})
        case State.QUEUED | State.SCHEDULED if settled.failure is not None:
            write(logging.INFO, f"task released: {about}: {settled.failure.message}", extra=fields, about=task)
        case _:
            write(logging.DEBUG, f"task snoozed: {about}", extra=fields, about=task)


def result_not_stored(task: Task, error: BaseException) -> None:
    write(
        logging.WARNING,
        f"the result of {task.name} ({task.id}) is not stored; the task has succeeded nevertheless: {text_of(error)}",
        extra={"state": str(State.SUCCEEDED)},
        about=task,
    )


def still_running(task: Task) -> None:
    write(
        logging.WARNING,
        f"{task.name} ({task.id}), attempt {task.attempt} has not stopped. It keeps its lease until it ends or "
        "this process does, so no other process starts it",
        about=task,
    )


def left_running(task: Task, settled: str | None) -> None:
    """Log an attempt that its worker has abandoned. ``settled`` is the recorded state, None if the lease was lost."""
    recorded = "Its lease is lost" if settled is None else f"It is recorded as {settled}, and is not retried"
    write(
        logging.ERROR,
        f"task does not stop: {task.name} ({task.id}), attempt {task.attempt} still runs although it was cancelled "
        f"twice. {recorded}. Its slot is free. Do not catch CancelledError in it",
        about=task,
    )


def lease_gone(task: Task) -> None:
    write(
        logging.WARNING,
        f"lease lost: {task.name} ({task.id}), attempt {task.attempt} is stopped: another worker has the task now",
        about=task,
    )


def lost(task: Task, settled: Settled) -> None:
    fields = {"state": str(settled.state)}
    about = f"{task.name} ({task.id}), attempt {task.attempt} on worker {task.worker}"
    if settled.failure is not None and settled.failure.kind is FailureKind.RELEASED:
        write(logging.INFO, f"task released: {about}, which has shut down", extra=fields, about=task)
        return
    count_lost(task)
    if settled.state is State.FAILED:
        message = f"task failed: {about}: its worker died {task.attempt} times while it ran"
        write(logging.ERROR, message, extra=fields, about=task)
    else:
        write(logging.WARNING, f"worker lost: {about} did not end; the task will run again", extra=fields, about=task)


def refused(task: Task, settled: Settled) -> None:
    count_refused(task)
    write(
        logging.WARNING,
        f"late worker refused: task {task.id} is past attempt {task.attempt}; "
        "the outcome of this attempt is not stored",
        extra={"state": str(settled.state)},
        about=task,
    )


def blocked(task: Task, blocked: timedelta, where: str) -> None:
    write(
        logging.WARNING,
        f"task {task.name} ({task.id}) has blocked the event loop for {blocked.total_seconds() * 1000:.0f} ms at "
        f"{where}. No request is answered meanwhile. Use await instead of the blocking call, or a `def` function, "
        "which runs in a thread",
        extra={"where": where},
        about=task,
    )


def waits_in_vain(waiting: Task, awaited: Task) -> None:
    write(
        logging.WARNING,
        f"{waiting.name} ({waiting.id}) waits for the result of {awaited.name} ({awaited.id}), which has not started "
        f"({awaited.state}). This is a deadlock if it needs a slot, a thread or a limit that waiting tasks hold. "
        "Give result() a timeout, raise the concurrency or the limit, or put the second half of the work into a "
        "task of its own, in a chain",
        extra={"awaited": awaited.id},
        about=waiting,
    )


def notice_failed(name: str, id: str, error: BaseException) -> None:
    write(
        logging.ERROR,
        f"the on_failure function of {name} raised {described(error)}",
        extra={"task": id, "task_name": name},
        exc_info=error,
    )


def not_shown(error: BaseException) -> None:
    once(f"progress {type_name(error)}", logging.WARNING, f"progress could not be displayed: {described(error)}")


def not_copied(error: BaseException) -> None:
    once(
        f"context {type_name(error)}",
        logging.WARNING,
        f"a context variable's value could not be copied, so tasks share it: {described(error)}",
    )
