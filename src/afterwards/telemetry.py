"""What is told to the people who run an application: every log line of this package."""

import logging
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from math import inf
from time import monotonic
from typing import Any

from afterwards.core.correction import CORRECTION
from afterwards.core.lifecycle import Settled
from afterwards.core.routing import Unroutable
from afterwards.core.schedule import Missed
from afterwards.core.task import FailureKind, Lease, State, Task
from afterwards.core.text import frames_of, printable, said_by, shortened, text_of, type_name, written

log = logging.getLogger("afterwards")

_said: set[str] = set()

SHORT_EVERY = 5.0
"""Seconds between two lines that say that this machine is short of the same thing."""

_short_since: dict[str, float] = {}


def _write(
    level: int, message: str, *, extra: Mapping[str, object] | None = None, exc_info: BaseException | None = None
) -> None:
    """Write one line. Never raises: who logs goes on, whatever a filter, a handler or a formatter does."""
    try:
        if exc_info is None:
            log.log(level, message, extra=extra)
        elif log.isEnabledFor(level):
            _write_with(exc_info, level, message, extra)
    except BaseException as trouble:  # the user's code may raise anything
        _write_at_least(level, message, trouble)


def _write_with(error: BaseException, level: int, message: str, extra: Mapping[str, object] | None) -> None:
    """Write one line with an exception, as text where no formatter could format it."""
    with suppress(BaseException):  # the user's code, as above
        if printable(error):
            log.log(level, message, extra=extra, exc_info=(type(error), error, frames_of(error)))
            return
    log.log(level, f"{message}\n{shortened(written(error, frames_of(error)))}", extra=extra)


def _write_at_least(level: int, message: str, trouble: BaseException) -> None:
    """Write a line on stderr that the handlers of a log did not take."""
    with suppress(BaseException):  # there may be no stderr
        name = logging.getLevelName(level)
        sys.stderr.write(f"{name}: {message} (the log did not take this line: {type_name(trouble)})\n")


def make_visible() -> None:
    """Show INFO lines on stderr where nobody configured logging: uvicorn configures only its own loggers."""
    if log.hasHandlers():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_UvicornLike())
    log.addHandler(handler)
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)


def start_afresh() -> None:
    """Forget what has been said once, as in a new process."""
    _said.clear()
    _short_since.clear()


def once(key: str, level: int, message: str) -> None:
    """Log a line the first time that its key comes up in this process."""
    if key not in _said:
        _said.add(key)
        _write(level, message)


def no_worker(engine: str) -> None:
    once(
        f"no worker {engine}",
        logging.WARNING,
        f"afterwards: a task was stored in {engine}, where no worker has ever run, so nothing may run it. Where the "
        "server keeps its tasks in another file, name that one: AFTERWARDS_URL=sqlite:////folder/afterwards.db in the "
        "environment of both, or the URL in Afterwards(app, ...)",
    )


def started(
    engine: str, *, concurrency: int, threads: int, worker: bool, queues: Collection[str] | None = None
) -> None:
    where = f"worker here, {concurrency} tasks and {threads} threads at once" if worker else "no worker in this process"
    if worker and queues is not None:
        where += f", only of the queues {', '.join(sorted(queues))}"
    _write(
        logging.INFO,
        f"afterwards: {engine}, {where}",
        extra={"engine": engine, "concurrency": concurrency, "worker": worker},
    )


def without_lifespan(engine: str) -> None:
    once(
        f"without lifespan {engine}",
        logging.INFO,
        "afterwards: the application runs without its lifespan (it is mounted inside another one, or its server runs "
        "none): the worker began with the first request",
    )


def committed_late(origin: str | None, names: Collection[str]) -> None:
    for name in dict.fromkeys(names):
        once(
            f"committed late {name}",
            logging.WARNING,
            f"the response of {origin or 'a request'} leaves before task {name!r} is stored: its session commits "
            "later, and if the process dies in between, the rows and the task are lost after a 2xx. Commit in the "
            'endpoint, or have the dependency that commits end before the response: Depends(get_db, scope="function")',
        )


def not_begun(error: Exception) -> None:
    _write(
        logging.CRITICAL,
        f"afterwards: the worker could not begin: {_said_by(error)}; tasks are stored, and not run in this process",
        exc_info=error,
    )


def succeeded(task: Task) -> None:
    """Told at DEBUG."""
    if log.isEnabledFor(logging.DEBUG):
        fields = {"task": task.id, "task_name": task.name, "attempt": task.attempt, "state": str(State.SUCCEEDED)}
        _write(logging.DEBUG, f"task succeeded: {task.name} ({task.id}), attempt {task.attempt}", extra=fields)


def settled(task: Task, settled: Settled, error: BaseException | None, times: int) -> None:
    """One line per attempt that did not succeed, with its traceback."""
    fields = {"task": task.id, "task_name": task.name, "attempt": task.attempt, "state": str(settled.state)}
    about = f"{task.name} ({task.id}), attempt {task.attempt}"
    match settled.state:
        case State.SCHEDULED if error is not None:
            _write(
                logging.WARNING,
                f"task raised {_said_by(error)}: {about}; retry {settled.failed} of {times} "
                f"in {settled.wait.total_seconds():.1f} s",
                extra=fields,
                exc_info=error,
            )
        case State.FAILED:
            _write(logging.ERROR, f"task failed: {about}: {_said_by(error)}", extra=fields, exc_info=error)
        case State.CANCELLED:
            _write(logging.INFO, f"task cancelled: {about}: {settled.reason}", extra=fields)
        case State.QUEUED if settled.set_aside is not None:
            set_aside(task.id, task.name, settled.set_aside)
        case State.QUEUED | State.SCHEDULED if settled.failure is not None:
            _write(logging.INFO, f"task given back: {about}: {settled.failure.message}", extra=fields)
        case _:
            _write(logging.DEBUG, f"task snoozed: {about}", extra=fields)


def still_running(task: Task) -> None:
    _write(
        logging.WARNING,
        f"{task.name} ({task.id}), attempt {task.attempt} has not stopped: it keeps its lease, so that no other "
        "process begins it, until it ends or this process does",
        extra={"task": task.id, "task_name": task.name, "attempt": task.attempt},
    )


def waits_in_vain(waiting: Task, awaited: Task) -> None:
    _write(
        logging.WARNING,
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
        _write(
            logging.WARNING,
            f"worker: this machine is too short of something to {doing}: {error}; what needs it waits",
        )


def lost(task: Task, settled: Settled) -> None:
    fields = {"task": task.id, "task_name": task.name, "attempt": task.attempt, "state": str(settled.state)}
    about = f"{task.name} ({task.id}), attempt {task.attempt} on worker {task.worker}"
    if settled.failure is not None and settled.failure.kind is FailureKind.RELEASED:
        _write(logging.INFO, f"task given back: {about}, which has shut down", extra=fields)
    elif settled.state is State.FAILED:
        _write(logging.ERROR, f"task failed: {about}: its worker died {task.attempt} times while it ran", extra=fields)
    else:
        _write(logging.WARNING, f"worker lost: {about} did not end; the task will run again", extra=fields)


def clock_jumped(jump: timedelta) -> None:
    """The wall clock was set, or the machine slept."""
    way = "forward" if jump > timedelta() else "back"
    if jump < -CORRECTION:
        _write(logging.WARNING, "clock: this is a correction: schedules, delays, rates and leases go on from now")
    _write(
        logging.WARNING,
        f"clock: it jumped {way} by {abs(jump.total_seconds()):,.0f} s; no worker is held to be dead before it has had "
        "time to renew its leases",
    )


def refused(leases: Iterable[Lease]) -> None:
    for lease in leases:
        _write(
            logging.WARNING,
            f"late worker refused: task {lease.task_id} has moved on from attempt {lease.attempt}; "
            "what this attempt returned is not stored",
            extra={"task": lease.task_id, "attempt": lease.attempt},
        )


def lease_gone(task: Task) -> None:
    _write(
        logging.WARNING,
        f"lease lost: {task.name} ({task.id}), attempt {task.attempt} is stopped: the task is somebody else's now",
        extra={"task": task.id, "task_name": task.name, "attempt": task.attempt},
    )


def blocked(name: str, blocked: timedelta, where: str) -> None:
    _write(
        logging.WARNING,
        f"{name} has blocked the event loop for {blocked.total_seconds() * 1000:.0f} ms at {where}: no request is "
        "answered meanwhile. Await what it waits for, or make it a `def` function, which runs in a thread",
        extra={"task_name": name, "where": where},
    )


def engine_trouble(doing: str, error: BaseException, wait: timedelta) -> None:
    _write(
        logging.WARNING,
        f"engine: could not {doing}: {text_of(error)}; next try in {wait.total_seconds():.1f} s",
        exc_info=error,
    )


def not_stored(error: BaseException, names: Iterable[str], *, answered: bool) -> None:
    """A request's tasks could not be stored; ``answered`` when its response had already begun."""
    how = "after the response had begun: they are lost" if answered else "so the request is answered with 503"
    _write(logging.ERROR, f"tasks could not be stored ({', '.join(names)}), {how}: {text_of(error)}", exc_info=error)


def never_committed(origin: str | None, names: Iterable[str]) -> None:
    _write(
        logging.WARNING,
        f"{origin or 'tasks'}: {', '.join(names)} were added with a session, and that session was never committed: "
        "they are not stored",
    )


def rolled_back(origin: str | None, names: Iterable[str]) -> None:
    _write(
        logging.INFO,
        f"{origin or 'tasks'}: {', '.join(names)} were rolled back with their session: they are not stored",
    )


def lost_after_commit(error: BaseException, names: Iterable[str]) -> None:
    _write(
        logging.ERROR,
        f"tasks could not be stored ({', '.join(names)}) after the commit of their session, whose database is another "
        f"one: they are lost: {text_of(error)}",
        exc_info=error,
    )


def refused_request(request: str, error: BaseException) -> None:
    _write(
        logging.ERROR, f"{request} needs the task store, so it is answered with 503: {text_of(error)}", exc_info=error
    )


def result_not_stored(task: Task, error: BaseException) -> None:
    _write(
        logging.WARNING,
        f"the result of {task.name} ({task.id}) is not stored, the task has succeeded all the same: {text_of(error)}",
        extra={"task": task.id, "task_name": task.name},
    )


def set_aside(id: str, name: str, reason: str) -> None:
    """Tell of a task that this code cannot read: once for each function and reason, for there may be very many."""
    once(
        f"set aside {name} {reason}",
        logging.WARNING,
        f"task set aside: {name} ({id}): {reason}. All other tasks go on. It stays stored, and runs when a worker "
        "comes whose code can read it. `await tasks.check()` lists all such tasks, and `cancel` ends one",
    )


def row_unreadable(what: str, name: str, error: BaseException) -> None:
    """Tell once of a row that is no task's. It is passed over, and stays as it is."""
    once(
        f"unreadable {what} {name}",
        logging.WARNING,
        f"the stored {what} {name} cannot be read, and is passed over: {said_by(error)}",
    )


def passed_over(name: str, since: datetime, missed: Missed) -> None:
    _write(
        logging.INFO,
        f"schedule: fires of {name} were missed since {since:%Y-%m-%d %H:%M:%S} UTC, and missed={str(missed)!r} says "
        f"which are made up for: {'none of them' if missed is Missed.SKIP else 'one of them'}",
        extra={"task_name": name},
    )


def unroutable(found: Unroutable) -> None:
    count = "1 task waits" if found.count == 1 else f"{found.count:,} tasks wait"
    _write(
        logging.WARNING,
        f"unroutable: {count} since {found.since:%Y-%m-%d %H:%M:%S} UTC for {found.name} in queue {found.queue}, and "
        f"{found.reason}. Nothing is lost: start a worker that takes them, give their name to the function that took "
        "its place, or cancel them",
        extra={"task_name": found.name, "queue": found.queue, "tasks": found.count},
    )


def notice_failed(name: str, error: BaseException) -> None:
    _write(logging.ERROR, f"the on_failure function of {name} raised {_said_by(error)}", exc_info=error)


def loop_broken(doing: str, error: BaseException) -> None:
    _write(logging.CRITICAL, f"worker: could not {doing} because of an error of its own; it goes on", exc_info=error)


def ended_early(doing: str) -> None:
    _write(
        logging.CRITICAL,
        f"worker: the part that has to {doing} was cancelled from outside, as by a loop over asyncio.all_tasks(); "
        "it starts again",
    )


def unfit(reason: str) -> None:
    _write(
        logging.CRITICAL,
        f"afterwards: requests that add tasks are answered with 503, for they would not run here: {reason}",
    )


def fit_again() -> None:
    _write(logging.WARNING, "afterwards: the worker works again, and requests may add tasks")


def left_running(task: Task, settled: str | None) -> None:
    """Tell of an attempt that its worker let go of; without a state it is recorded elsewhere, for its lease is lost."""
    recorded = "Its lease is lost" if settled is None else f"It is recorded as {settled}, and it is not tried again"
    _write(
        logging.ERROR,
        f"task does not stop: {task.name} ({task.id}), attempt {task.attempt} goes on although it was cancelled twice. "
        f"{recorded}. Its slot is free. Let CancelledError pass in it",
        extra={"task": task.id, "task_name": task.name, "attempt": task.attempt},
    )


def not_shown(error: BaseException) -> None:
    once(f"progress {type_name(error)}", logging.WARNING, f"progress could not be shown: {_said_by(error)}")


def not_copied(error: BaseException) -> None:
    once(
        f"context {type_name(error)}",
        logging.WARNING,
        f"a context variable's value could not be copied, so tasks share it: {_said_by(error)}",
    )


def not_traced(error: BaseException) -> None:
    once(f"trace {type_name(error)}", logging.WARNING, f"a trace could not be kept: {_said_by(error)}")


def left_undone(name: str, what: str) -> None:
    once(f"left undone {name}", logging.WARNING, f"background task {name} returned {what}")


def not_recorded(name: str, error: BaseException) -> None:
    _write(
        logging.WARNING,
        f"the failure of background task {name} could not be recorded: {text_of(error)}",
        extra={"task_name": name},
    )


def mixed(origin: str | None) -> None:
    once(
        f"mixed {origin}",
        logging.WARNING,
        f"{origin or 'a request'} adds plain and @task functions: the plain ones run first, whatever the order",
    )


def draining(running: int, grace: timedelta) -> None:
    who = "1 task has" if running == 1 else f"{running} tasks have"
    _write(
        logging.INFO,
        f"afterwards: draining, {who} {grace.total_seconds():g} s to end; a second Ctrl-C ends at once, and gives back "
        "what runs",
        extra={"running": running},
    )


def not_fired(name: str, error: BaseException) -> None:
    _write(
        logging.ERROR,
        f"the schedule of {name} could not fire: its task cannot be made: {_said_by(error)}",
        exc_info=error,
    )


def trace_carrier() -> dict[str, str]:
    """The OpenTelemetry trace that the caller belongs to, as headers; nothing where nobody traces. Never raises."""
    context = sys.modules.get("opentelemetry.context")  # who traces has loaded it
    if context is None or not context.get_current():  # as most often
        return {}
    try:
        return _carrier()
    except Exception as error:  # a propagator of the user's
        not_traced(error)
        return {}


def _carrier() -> dict[str, str]:
    from opentelemetry import propagate, trace  # loaded where a trace is to go on, and nowhere else

    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier)
    return carrier


@contextmanager
def attempt_span(task: Task, carrier: dict[str, str]) -> Iterator[None]:
    """A span round one attempt, below the one that was current when its task was added.

    Where none can be made there is none: what a sampler, a processor or an exporter raises stays out of the attempt.
    """
    if not carrier:
        yield
        return
    span = ExitStack()
    try:
        span.enter_context(_span(task, carrier))
    except Exception as error:  # the user's code
        not_traced(error)
    try:
        yield
    finally:
        try:
            span.__exit__(*sys.exc_info())
        except Exception as error:  # as above
            not_traced(error)


def _span(task: Task, carrier: dict[str, str]) -> AbstractContextManager[Any]:
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
    return trace.get_tracer("afterwards").start_as_current_span(
        f"process {task.queue}",
        context=propagate.extract(carrier),
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
    )


def attempt_failed(error: BaseException) -> None:
    """Mark the span of an attempt. Never raises."""
    from opentelemetry import trace  # as above

    try:
        span = trace.get_current_span()
        span.set_status(trace.StatusCode.ERROR, said_by(error))
        span.record_exception(error)
    except Exception as trouble:  # the user's code, or an exception that cannot be formatted
        not_traced(trouble)


def _said_by(error: BaseException | None) -> str:
    return "no reason given" if error is None else f"{type_name(error)}: {said_by(error)}"


class _UvicornLike(logging.Formatter):
    """The look of uvicorn's own lines, so that ours do not stand out among them."""

    def format(self, record: logging.LogRecord) -> str:
        lead = f"{record.levelname}:".ljust(10)
        return lead + super().format(record)
