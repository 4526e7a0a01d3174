"""Log lines about attempts and their outcomes."""

import logging
from collections.abc import Iterable
from datetime import timedelta

from afterwards.core.settling import Settled
from afterwards.core.task import FailureKind, Lease, State, Task
from afterwards.core.text import text_of, type_name
from afterwards.telemetry.store import set_aside
from afterwards.telemetry.writing import described, log, once, write


def succeeded(task: Task) -> None:
    """Log a success at DEBUG."""
    if log.isEnabledFor(logging.DEBUG):
        fields = {"task": task.id, "task_name": task.name, "attempt": task.attempt, "state": str(State.SUCCEEDED)}
        write(logging.DEBUG, f"task succeeded: {task.name} ({task.id}), attempt {task.attempt}", extra=fields)


def settled(task: Task, settled: Settled, error: BaseException | None, times: int) -> None:
    """Log one line for an attempt that did not succeed, with its traceback."""
    fields = {"task": task.id, "task_name": task.name, "attempt": task.attempt, "state": str(settled.state)}
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
            set_aside(task.id, task.name, settled.set_aside)
        case State.QUEUED | State.SCHEDULED if settled.failure is not None:
            write(logging.INFO, f"task released: {about}: {settled.failure.message}", extra=fields, about=task)
        case _:
            write(logging.DEBUG, f"task snoozed: {about}", extra=fields)


def result_not_stored(task: Task, error: BaseException) -> None:
    write(
        logging.WARNING,
        f"the result of {task.name} ({task.id}) is not stored; the task has succeeded nevertheless: {text_of(error)}",
        extra={"task": task.id, "task_name": task.name},
        about=task,
    )


def still_running(task: Task) -> None:
    write(
        logging.WARNING,
        f"{task.name} ({task.id}), attempt {task.attempt} has not stopped. It keeps its lease until it ends or "
        "this process does, so no other process starts it",
        extra={"task": task.id, "task_name": task.name, "attempt": task.attempt},
    )


def left_running(task: Task, settled: str | None) -> None:
    """Log an attempt that its worker has abandoned. ``settled`` is the recorded state, None if the lease was lost."""
    recorded = "Its lease is lost" if settled is None else f"It is recorded as {settled}, and is not retried"
    write(
        logging.ERROR,
        f"task does not stop: {task.name} ({task.id}), attempt {task.attempt} still runs although it was cancelled "
        f"twice. {recorded}. Its slot is free. Do not catch CancelledError in it",
        extra={"task": task.id, "task_name": task.name, "attempt": task.attempt},
    )


def lease_gone(task: Task) -> None:
    write(
        logging.WARNING,
        f"lease lost: {task.name} ({task.id}), attempt {task.attempt} is stopped: another worker has the task now",
        extra={"task": task.id, "task_name": task.name, "attempt": task.attempt},
    )


def lost(task: Task, settled: Settled) -> None:
    fields = {"task": task.id, "task_name": task.name, "attempt": task.attempt, "state": str(settled.state)}
    about = f"{task.name} ({task.id}), attempt {task.attempt} on worker {task.worker}"
    if settled.failure is not None and settled.failure.kind is FailureKind.RELEASED:
        write(logging.INFO, f"task released: {about}, which has shut down", extra=fields)
    elif settled.state is State.FAILED:
        write(logging.ERROR, f"task failed: {about}: its worker died {task.attempt} times while it ran", extra=fields)
    else:
        write(logging.WARNING, f"worker lost: {about} did not end; the task will run again", extra=fields)


def refused(leases: Iterable[Lease]) -> None:
    for lease in leases:
        write(
            logging.WARNING,
            f"late worker refused: task {lease.task_id} is past attempt {lease.attempt}; "
            "the outcome of this attempt is not stored",
            extra={"task": lease.task_id, "attempt": lease.attempt},
        )


def blocked(name: str, blocked: timedelta, where: str) -> None:
    write(
        logging.WARNING,
        f"{name} has blocked the event loop for {blocked.total_seconds() * 1000:.0f} ms at {where}. No request is "
        "answered meanwhile. Use await instead of the blocking call, or a `def` function, which runs in a thread",
        extra={"task_name": name, "where": where},
    )


def waits_in_vain(waiting: Task, awaited: Task) -> None:
    write(
        logging.WARNING,
        f"{waiting.name} ({waiting.id}) waits for the result of {awaited.name} ({awaited.id}), which has not started "
        f"({awaited.state}). This is a deadlock if it needs a slot, a thread or a limit that waiting tasks hold. "
        "Give result() a timeout, raise the concurrency or the limit, or put the second half of the work into a "
        "task of its own, in a chain",
        extra={"task": waiting.id, "task_name": waiting.name, "awaited": awaited.id},
    )


def notice_failed(name: str, error: BaseException) -> None:
    write(logging.ERROR, f"the on_failure function of {name} raised {described(error)}", exc_info=error)


def not_shown(error: BaseException) -> None:
    once(f"progress {type_name(error)}", logging.WARNING, f"progress could not be displayed: {described(error)}")


def not_copied(error: BaseException) -> None:
    once(
        f"context {type_name(error)}",
        logging.WARNING,
        f"a context variable's value could not be copied, so tasks share it: {described(error)}",
    )
