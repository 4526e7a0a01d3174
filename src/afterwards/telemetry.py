"""What is told to the people who run an application: every log line of this package."""

import logging
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from math import inf
from time import monotonic

from afterwards.core.lifecycle import Settled
from afterwards.core.routing import Unroutable
from afterwards.core.schedule import Missed
from afterwards.core.task import FailureKind, Lease, State, Task
from afterwards.core.text import said_by

log = logging.getLogger("afterwards")

_said: set[str] = set()

SHORT_EVERY = 5.0
"""Seconds between two lines that say that this machine is short of the same thing."""

_short_since: dict[str, float] = {}


def make_visible() -> None:
    """Show INFO lines on stderr where nobody configured logging: uvicorn configures only its own loggers."""
    if log.hasHandlers():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_UvicornLike())
    log.addHandler(handler)
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)


def once(key: str, level: int, message: str) -> None:
    """Log a line the first time that its key comes up in this process."""
    if key not in _said:
        _said.add(key)
        log.log(level, message)


def started(
    engine: str, *, concurrency: int, threads: int, worker: bool, queues: Collection[str] | None = None
) -> None:
    where = f"worker here, {concurrency} tasks and {threads} threads at once" if worker else "no worker in this process"
    if worker and queues is not None:
        where += f", only of the queues {', '.join(sorted(queues))}"
    log.info(f"afterwards: {engine}, {where}", extra={"engine": engine, "concurrency": concurrency, "worker": worker})


def stored_only(engine: str) -> None:
    once(
        f"stored only {engine}",
        logging.WARNING,
        "afterwards: the application runs without its lifespan, so tasks are stored but not run in this process; "
        "run it under a server such as uvicorn, or as `with TestClient(app)`",
    )


def succeeded(task: Task) -> None:
    """Told at DEBUG."""
    if log.isEnabledFor(logging.DEBUG):
        fields = {"task": task.id, "task_name": task.name, "attempt": task.attempt, "state": str(State.SUCCEEDED)}
        log.debug(f"task succeeded: {task.name} ({task.id}), attempt {task.attempt}", extra=fields)


def settled(task: Task, settled: Settled, error: BaseException | None, times: int) -> None:
    """One line per attempt that did not succeed, with its traceback."""
    fields = {"task": task.id, "task_name": task.name, "attempt": task.attempt, "state": str(settled.state)}
    about = f"{task.name} ({task.id}), attempt {task.attempt}"
    match settled.state:
        case State.SCHEDULED if error:
            log.warning(
                f"task raised {_said_by(error)}: {about}; retry {settled.failed} of {times} "
                f"in {settled.wait.total_seconds():.1f} s",
                extra=fields,
                exc_info=error,
            )
        case State.FAILED:
            log.error(f"task failed: {about}: {_said_by(error)}", extra=fields, exc_info=error)
        case State.CANCELLED:
            log.info(f"task cancelled: {about}: {settled.reason}", extra=fields)
        case State.QUEUED | State.SCHEDULED if settled.failure is not None:
            log.info(f"task given back: {about}: {settled.failure.message}", extra=fields)
        case _:
            log.debug(f"task snoozed: {about}", extra=fields)


def still_running(task: Task) -> None:
    log.warning(
        f"{task.name} ({task.id}), attempt {task.attempt} has not stopped: it keeps its lease, so that no other "
        "process begins it, until it ends or this process does",
        extra={"task": task.id, "task_name": task.name, "attempt": task.attempt},
    )


def waits_in_vain(waiting: Task, awaited: Task) -> None:
    log.warning(
        f"{waiting.name} ({waiting.id}) waits for the result of {awaited.name} ({awaited.id}), which has not begun "
        f"({awaited.state}): it may wait for ever if that needs a slot, a thread or a limit that those who wait hold. "
        "Give result() a timeout, raise the concurrency or the limit, or add the second half of the work as a task "
        "of its own, in a chain",
        extra={"task": waiting.id, "task_name": waiting.name, "awaited": awaited.id},
    )


def short(doing: str, error: BaseException) -> None:
    """Told now and then: it may come up for every task."""
    now = monotonic()
    if now - _short_since.get(doing, -inf) >= SHORT_EVERY:
        _short_since[doing] = now
        log.warning(f"worker: could not {doing}, because this machine is short of it: {error}; what needs it waits")


def lost(task: Task, settled: Settled) -> None:
    fields = {"task": task.id, "task_name": task.name, "attempt": task.attempt, "state": str(settled.state)}
    about = f"{task.name} ({task.id}), attempt {task.attempt} on worker {task.worker}"
    if settled.failure is not None and settled.failure.kind is FailureKind.RELEASED:
        log.info(f"task given back: {about}, which has shut down", extra=fields)
    elif settled.state is State.FAILED:
        log.error(f"task failed: {about}: its worker died {task.attempt} times while it ran", extra=fields)
    else:
        log.warning(f"worker lost: {about} did not end; the task will run again", extra=fields)


def refused(leases: Iterable[Lease]) -> None:
    for lease in leases:
        log.warning(
            f"late worker refused: task {lease.task_id} has moved on from attempt {lease.attempt}; "
            "what this attempt returned is not stored",
            extra={"task": lease.task_id, "attempt": lease.attempt},
        )


def lease_gone(task: Task) -> None:
    log.warning(
        f"lease lost: {task.name} ({task.id}), attempt {task.attempt} is stopped: the task is somebody else's now",
        extra={"task": task.id, "task_name": task.name, "attempt": task.attempt},
    )


def blocked(name: str, blocked: timedelta, where: str) -> None:
    log.warning(
        f"{name} has blocked the event loop for {blocked.total_seconds() * 1000:.0f} ms at {where}: no request is "
        "answered meanwhile. Await what it waits for, or make it a `def` function, which runs in a thread",
        extra={"task_name": name, "where": where},
    )


def engine_trouble(doing: str, error: BaseException, wait: timedelta) -> None:
    log.warning(f"engine: could not {doing}: {error}; next try in {wait.total_seconds():.1f} s", exc_info=error)


def not_stored(error: BaseException, names: Iterable[str], *, answered: bool) -> None:
    """A request's tasks could not be stored; ``answered`` when its response had already begun."""
    how = "after the response had begun: they are lost" if answered else "so the request is answered with 503"
    log.error(f"tasks could not be stored ({', '.join(names)}), {how}: {error}", exc_info=error)


def never_committed(origin: str | None, names: Iterable[str]) -> None:
    log.warning(
        f"{origin or 'tasks'}: {', '.join(names)} were added with a session, and that session was never committed: "
        "they are not stored"
    )


def rolled_back(origin: str | None, names: Iterable[str]) -> None:
    log.info(f"{origin or 'tasks'}: {', '.join(names)} were rolled back with their session: they are not stored")


def lost_after_commit(error: BaseException, names: Iterable[str]) -> None:
    log.error(
        f"tasks could not be stored ({', '.join(names)}) after the commit of their session, whose database is another "
        f"one: they are lost: {error}",
        exc_info=error,
    )


def refused_request(request: str, error: BaseException) -> None:
    log.error(f"{request} needs the task store, so it is answered with 503: {error}", exc_info=error)


def result_not_stored(task: Task, error: BaseException) -> None:
    log.warning(
        f"the result of {task.name} ({task.id}) is not stored, the task has succeeded all the same: {error}",
        extra={"task": task.id, "task_name": task.name},
    )


def passed_over(name: str, since: datetime, missed: Missed) -> None:
    log.info(
        f"schedule: fires of {name} were missed since {since:%Y-%m-%d %H:%M:%S} UTC, and missed={str(missed)!r} says "
        f"which are made up for: {'none of them' if missed is Missed.SKIP else 'one of them'}",
        extra={"task_name": name},
    )


def unroutable(found: Unroutable) -> None:
    count = "1 task waits" if found.count == 1 else f"{found.count:,} tasks wait"
    log.warning(
        f"unroutable: {count} since {found.since:%Y-%m-%d %H:%M:%S} UTC for {found.name} in queue {found.queue}, and "
        f"{found.reason}. Nothing is lost: start a worker that takes them, give their name to the function that took "
        "its place, or cancel them",
        extra={"task_name": found.name, "queue": found.queue, "tasks": found.count},
    )


def notice_failed(name: str, error: BaseException) -> None:
    log.error(f"the on_failure function of {name} raised {_said_by(error)}", exc_info=error)


def loop_broken(doing: str, error: BaseException) -> None:
    log.critical(f"worker: could not {doing} because of an error of its own; it goes on", exc_info=error)


def not_recorded(name: str, error: BaseException) -> None:
    log.warning(f"the failure of background task {name} could not be recorded: {error}", extra={"task_name": name})


def mixed(origin: str | None) -> None:
    once(
        f"mixed {origin}",
        logging.WARNING,
        f"{origin or 'a request'} adds plain and @task functions: the plain ones run first, whatever the order",
    )


def draining(running: int, grace: timedelta) -> None:
    who = "1 task has" if running == 1 else f"{running} tasks have"
    log.info(f"afterwards: draining, {who} {grace.total_seconds():g} s to end", extra={"running": running})


def not_fired(name: str, error: BaseException) -> None:
    log.error(f"the schedule of {name} could not fire: its task cannot be made: {_said_by(error)}", exc_info=error)


def trace_carrier() -> dict[str, str]:
    """The OpenTelemetry trace that the caller belongs to, as headers; nothing where nobody traces."""
    context = sys.modules.get("opentelemetry.context")  # who traces has loaded it
    if context is None or not context.get_current():  # as most often
        return {}
    from opentelemetry import propagate, trace  # loaded where a trace is to go on, and nowhere else

    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier)
    return carrier


@contextmanager
def attempt_span(task: Task, carrier: dict[str, str]) -> Iterator[None]:
    """A span round one attempt, below the one that was current when its task was added."""
    if not carrier:
        yield
        return
    from opentelemetry import propagate, trace  # as above

    attributes: dict[str, str | int] = {
        "messaging.system": "afterwards",
        "messaging.destination.name": task.queue,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": task.id,
        "afterwards.task.name": task.name,
        "afterwards.task.attempt": task.attempt,
    }
    with trace.get_tracer("afterwards").start_as_current_span(
        f"process {task.queue}",
        context=propagate.extract(carrier),
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
    ):
        yield


def attempt_failed(error: BaseException) -> None:
    """Mark the span of an attempt."""
    from opentelemetry import trace  # as above

    span = trace.get_current_span()
    span.record_exception(error)
    span.set_status(trace.StatusCode.ERROR, said_by(error))


def _said_by(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {said_by(error)}" if error else "no reason given"


class _UvicornLike(logging.Formatter):
    """The look of uvicorn's own lines, so that ours do not stand out among them."""

    def format(self, record: logging.LogRecord) -> str:
        lead = f"{record.levelname}:".ljust(10)
        return lead + super().format(record)
