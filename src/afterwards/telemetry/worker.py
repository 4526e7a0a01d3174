"""Log lines about the worker of this process, its engine and its schedules."""

import logging
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial

from afterwards.core.clock_correction import CORRECTION
from afterwards.core.problems import Problem
from afterwards.core.routing import Unroutable
from afterwards.core.schedule import Missed
from afterwards.core.text import text_of
from afterwards.telemetry import writing
from afterwards.telemetry.writing import WORKER, described

now_and_then = partial(writing.now_and_then, logger=WORKER)
once = partial(writing.once, logger=WORKER)
write = partial(writing.write, logger=WORKER)

INTERNAL_ERROR = "because of an internal error"
"""Part of each line about a fault of this package. The chaos test looks for it."""

SHORT_EVERY = 5.0
"""The least seconds between two lines about the same shortage."""

PROBED_EVERY = 60.0
"""The least seconds between two lines about probes that fail."""


def started(
    engine: str, *, concurrency: int, threads: int, worker: bool, queues: Collection[str] | None = None
) -> None:
    where = f"worker here, {concurrency} tasks and {threads} threads at once" if worker else "no worker in this process"
    if worker and queues is not None:
        where += f", only of the queues {', '.join(sorted(queues))}"
    write(
        logging.INFO,
        f"afterwards: {engine}, {where}",
        extra={"engine": engine, "concurrency": concurrency, "worker": worker},
    )


def cannot_run(problem: Problem) -> None:
    """Log, once, stored tasks that this worker's code could not run."""
    once(
        f"cannot run {problem.name} {problem.what} {problem.reason}",
        logging.WARNING,
        f"afterwards: stored tasks cannot run with this code: {problem}. They stay stored until a worker comes that "
        "can run them. `await tasks.check()` lists all",
        extra={"task_name": problem.name, "tasks": problem.count},
    )


def waits_for_store(engine: str, error: Exception, patience: float) -> None:
    write(
        logging.WARNING,
        f"afterwards: {engine} is not available; the start waits for it, at most {patience:g} s: {text_of(error)}",
        extra={"engine": engine},
    )


def not_begun(error: Exception) -> None:
    write(
        logging.CRITICAL,
        f"afterwards: the worker could not start: {described(error)}; this process stores tasks and does not run them",
        exc_info=error,
    )


def draining(running: int, grace: timedelta) -> None:
    who = "1 task has" if running == 1 else f"{running} tasks have"
    write(
        logging.INFO,
        f"afterwards: draining, {who} {grace.total_seconds():g} s to end; a second Ctrl-C releases running "
        "tasks at once",
        extra={"running": running},
    )


def unfit(reason: str) -> None:
    write(
        logging.CRITICAL,
        f"afterwards: requests that add tasks are answered with 503, because they would not run here: {reason}",
    )


def fit_again() -> None:
    write(logging.WARNING, "afterwards: the worker works again, and requests can add tasks")


def loop_broken(doing: str, error: BaseException) -> None:
    write(logging.CRITICAL, f"worker: could not {doing} {INTERNAL_ERROR}; it continues", exc_info=error)


def ended_early(doing: str) -> None:
    write(
        logging.CRITICAL,
        f"worker: the part that has to {doing} was cancelled from outside, for example by a loop over "
        "asyncio.all_tasks(); it is restarted",
    )


def engine_trouble(doing: str, error: BaseException, wait: timedelta) -> None:
    write(
        logging.WARNING,
        f"engine: could not {doing}: {text_of(error)}; next try in {wait.total_seconds():.1f} s",
        exc_info=error,
    )


def store_silent(error: BaseException) -> None:
    """Log why a probe has failed. The lines are limited in rate: probes come every few seconds."""
    now_and_then("store silent", PROBED_EVERY, logging.WARNING, f"engine: a probe has failed: {text_of(error)}")


def short(doing: str, error: BaseException) -> None:
    """Log a shortage of a resource. The lines are limited in rate, because every task may meet it."""
    now_and_then(
        f"short {doing}",
        SHORT_EVERY,
        logging.WARNING,
        f"worker: this machine lacks a resource to {doing}: {error}; tasks that need it wait",
    )


def clock_jumped(jump: timedelta) -> None:
    """Log that the wall clock was set, or that the machine slept."""
    way = "forward" if jump > timedelta() else "back"
    if jump < -CORRECTION:
        write(
            logging.WARNING,
            "clock: this is a correction: schedules, delays, rates and leases continue from the new time",
        )
    write(
        logging.WARNING,
        f"clock: it jumped {way} by {abs(jump.total_seconds()):,.0f} s; no worker is considered dead before it has had "
        "time to renew its leases",
    )


def not_fired(name: str, error: BaseException) -> None:
    write(
        logging.ERROR,
        f"the schedule of {name} could not fire, because its task cannot be made: {described(error)}",
        exc_info=error,
    )


def passed_over(name: str, since: datetime, missed: Missed) -> None:
    write(
        logging.INFO,
        f"schedule: fires of {name} were missed since {since:%Y-%m-%d %H:%M:%S} UTC; by missed={str(missed)!r}, "
        f"{'none of them runs' if missed is Missed.SKIP else 'only the latest runs'}",
        extra={"task_name": name},
    )


def unroutable(found: Unroutable) -> None:
    count = "1 task waits" if found.count == 1 else f"{found.count:,} tasks wait"
    write(
        logging.WARNING,
        f"unroutable: {count} since {found.since:%Y-%m-%d %H:%M:%S} UTC for {found.name} in queue {found.queue}, and "
        f"{found.reason}. Nothing is lost: start a worker that takes them, add the name to the aliases of the function "
        "that replaced it, or cancel them",
        extra={"task_name": found.name, "queue": found.queue, "tasks": found.count},
    )
