"""Log lines about the worker of this process and its parts."""

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from afterwards.core.correction import CORRECTION
from afterwards.core.routing import Unroutable
from afterwards.core.schedule import Missed
from afterwards.core.text import text_of
from afterwards.telemetry.writing import described, now_and_then, write

SHORT_EVERY = 5.0
"""Seconds between two lines that say that this machine is short of the same thing."""


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


def not_begun(error: Exception) -> None:
    write(
        logging.CRITICAL,
        f"afterwards: the worker could not begin: {described(error)}; tasks are stored, and not run in this process",
        exc_info=error,
    )


def draining(running: int, grace: timedelta) -> None:
    who = "1 task has" if running == 1 else f"{running} tasks have"
    write(
        logging.INFO,
        f"afterwards: draining, {who} {grace.total_seconds():g} s to end; a second Ctrl-C ends at once, and gives back "
        "what runs",
        extra={"running": running},
    )


def unfit(reason: str) -> None:
    write(
        logging.CRITICAL,
        f"afterwards: requests that add tasks are answered with 503, for they would not run here: {reason}",
    )


def fit_again() -> None:
    write(logging.WARNING, "afterwards: the worker works again, and requests may add tasks")


def loop_broken(doing: str, error: BaseException) -> None:
    write(logging.CRITICAL, f"worker: could not {doing} because of an error of its own; it goes on", exc_info=error)


def ended_early(doing: str) -> None:
    write(
        logging.CRITICAL,
        f"worker: the part that has to {doing} was cancelled from outside, as by a loop over asyncio.all_tasks(); "
        "it starts again",
    )


def engine_trouble(doing: str, error: BaseException, wait: timedelta) -> None:
    write(
        logging.WARNING,
        f"engine: could not {doing}: {text_of(error)}; next try in {wait.total_seconds():.1f} s",
        exc_info=error,
    )


def short(doing: str, error: BaseException) -> None:
    """Told now and then: it may come up for every task."""
    now_and_then(
        f"short {doing}",
        SHORT_EVERY,
        logging.WARNING,
        f"worker: this machine is too short of something to {doing}: {error}; what needs it waits",
    )


def clock_jumped(jump: timedelta) -> None:
    """The wall clock was set, or the machine slept."""
    way = "forward" if jump > timedelta() else "back"
    if jump < -CORRECTION:
        write(logging.WARNING, "clock: this is a correction: schedules, delays, rates and leases go on from now")
    write(
        logging.WARNING,
        f"clock: it jumped {way} by {abs(jump.total_seconds()):,.0f} s; no worker is held to be dead before it has had "
        "time to renew its leases",
    )


def not_fired(name: str, error: BaseException) -> None:
    write(
        logging.ERROR,
        f"the schedule of {name} could not fire: its task cannot be made: {described(error)}",
        exc_info=error,
    )


def passed_over(name: str, since: datetime, missed: Missed) -> None:
    write(
        logging.INFO,
        f"schedule: fires of {name} were missed since {since:%Y-%m-%d %H:%M:%S} UTC, and missed={str(missed)!r} says "
        f"which are made up for: {'none of them' if missed is Missed.SKIP else 'one of them'}",
        extra={"task_name": name},
    )


def unroutable(found: Unroutable) -> None:
    count = "1 task waits" if found.count == 1 else f"{found.count:,} tasks wait"
    write(
        logging.WARNING,
        f"unroutable: {count} since {found.since:%Y-%m-%d %H:%M:%S} UTC for {found.name} in queue {found.queue}, and "
        f"{found.reason}. Nothing is lost: start a worker that takes them, give their name to the function that took "
        "its place, or cancel them",
        extra={"task_name": found.name, "queue": found.queue, "tasks": found.count},
    )
