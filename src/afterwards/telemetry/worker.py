"""Log lines about the worker of this process, its engine and its schedules."""

import logging
from datetime import datetime, timedelta
from functools import partial

from afterwards.core.options import Options
from afterwards.core.problems import Problem
from afterwards.core.routing import Unroutable
from afterwards.core.schedule import Missed
from afterwards.core.text import text_of
from afterwards.core.verdict import Role
from afterwards.telemetry import writing
from afterwards.telemetry.writing import WORKER, described, unless_away

now_and_then = partial(writing.now_and_then, logger=WORKER)
once = partial(writing.once, logger=WORKER)
write = partial(writing.write, logger=WORKER)

INTERNAL_ERROR = "because of an internal error"
"""Part of each line about a fault of this package. The chaos test looks for it."""

SHORT_EVERY = 5.0
"""The least seconds between two lines about the same shortage."""

PROBED_EVERY = 60.0
"""The least seconds between two lines about probes that fail."""


def started(engine: str, options: Options, role: Role, fleet: str | None = None) -> None:
    """Log what a process does for its tasks."""
    write(
        logging.INFO,
        f"afterwards: {engine}, {_described(options, role, fleet)}",
        extra={"engine": engine, "concurrency": options.slots, "worker": role is Role.WORKER, "role": str(role)},
    )


def _described(options: Options, role: Role, fleet: str | None) -> str:
    queues = "" if options.queues is None else f", only of the queues {', '.join(sorted(options.queues))}"
    match role:
        case Role.WORKER:
            return f"worker here, {options.slots} tasks and {options.threads} threads at once{queues}"
        case Role.DISPATCHER:
            return f"dispatcher here, tasks run on the fleet of {fleet}{queues}"
        case Role.FLEET_WORKER:
            return f"worker of the fleet of {fleet} here, {options.slots} at a time{queues}"
        case Role.SENDER:
            return "no worker in this process"


def fleet_silent(fleet: str, reason: str, unsent: int) -> None:
    """Log that tasks cannot be sent. Called once, until they can be."""
    waits = "1 task waits" if unsent == 1 else f"{unsent} tasks wait"
    write(
        logging.WARNING,
        f"dispatcher: {fleet} could not send tasks: {reason}; {waits}, and nothing is lost; next tries every few "
        "seconds",
        extra={"fleet": fleet, "unsent": unsent},
    )


def fleet_accepts(fleet: str) -> None:
    write(logging.WARNING, f"dispatcher: {fleet} sends tasks again", extra={"fleet": fleet})


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
    """Log a call of the engine that failed."""
    write(
        logging.WARNING,
        f"engine: could not {doing}: {text_of(error)}; next try in {wait.total_seconds():.1f} s",
        exc_info=unless_away(error),
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
    write(
        logging.WARNING,
        f"clock: it jumped {way} by {abs(jump.total_seconds()):,.0f} s; no worker is considered dead before it has had "
        "time to renew its leases",
    )


def clock_corrected() -> None:
    """Log that stored instants lay in the future, because the clock was ahead when they were written."""
    write(
        logging.WARNING,
        "clock: it was ahead by more than three hours: schedules, delays, rates and leases continue from the new time",
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
