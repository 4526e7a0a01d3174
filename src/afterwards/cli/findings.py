"""The findings of ``afterwards doctor``, from what was read of a store. Nothing here reads or waits."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from afterwards.cli import times
from afterwards.cli.output import counted
from afterwards.core.routing import LiveWorker, Unroutable
from afterwards.core.task import State
from afterwards.engine import Paused, Stats
from afterwards.engines.sqlite.diagnosis import Diagnosis as FileDiagnosis

LONG_WAIT = timedelta(minutes=5)
LATE_LOOP = timedelta(seconds=1)
CLOCK_DIFFERENCE = timedelta(seconds=5)
LITTLE_SPACE = 500_000_000
"""Bytes."""

_MOST_NAMED = 5


class Level(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"  # tasks do not run, or could be lost


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    about: str
    level: Level
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The values that were read from a store."""

    stats: Stats
    paused: Paused
    workers: Sequence[LiveWorker]  # that live
    unroutable: Sequence[Unroutable]
    set_aside: int
    failed_lately: int  # within the last day
    newest: datetime | None  # when the newest task was added, by the store's clock


def of_store(read: Read, now: datetime, *, in_a_file: bool) -> Iterator[Finding]:
    """Yield the findings about tasks and workers."""
    living = [one for one in read.workers if not one.has_left]
    yield from _of_workers(living, read, in_a_file=in_a_file)
    yield from _of_routes(read)
    yield from _of_pauses(read.paused)
    yield _of_wait(read.stats)
    if read.set_aside:
        yield Finding(
            "set aside",
            Level.WARNING,
            f"{counted(read.set_aside, 'task')} cannot be read by the code that runs: `afterwards check` says why",
        )
    if read.failed_lately:
        yield Finding(
            "failures",
            Level.WARNING,
            f"{counted(read.failed_lately, 'task')} failed in the last day: "
            "`afterwards list --state failed --since 1d`",
        )
    else:
        yield Finding("failures", Level.OK, "no task failed in the last day")
    if read.newest is not None and read.newest - now > CLOCK_DIFFERENCE:
        yield Finding(
            "clock",
            Level.WARNING,
            f"the newest task was added {times.lasting(read.newest - now)} in the future: the clock was set back, or "
            "this host's differs from the store's",
        )


def _of_workers(living: Sequence[LiveWorker], read: Read, *, in_a_file: bool) -> Iterator[Finding]:
    unfinished = sum(number for (_, state), number in read.stats.counts.items() if not state.finished)
    workers = [one for one in living if not one.dispatches]
    dispatchers = len(living) - len(workers)
    if not workers:
        level = Level.PROBLEM if unfinished else Level.WARNING
        waits = f", and {counted(unfinished, 'task')} cannot run" if unfinished else ""
        start = "start those of the fleet" if dispatchers else "start the application, or `afterwards worker`"
        yield Finding("workers", level, f"none is alive{waits}: {start}")
    else:
        slots = sum(one.slots for one in workers)
        yield Finding("workers", Level.OK, f"{counted(len(workers), 'worker')} alive, {counted(slots, 'task')} at once")
    if dispatchers:
        found = f"{dispatchers} {'process' if dispatchers == 1 else 'processes'}"
        yield Finding("dispatchers", Level.OK, f"{found} to send tasks to a fleet")
    hosts = sorted({one.host for one in living})
    if in_a_file and len(hosts) > 1:
        yield Finding(
            "workers",
            Level.PROBLEM,
            f"workers on {len(hosts)} hosts ({', '.join(hosts[:_MOST_NAMED])}) use one SQLite file, which can damage "
            "it: use PostgreSQL for several hosts (containers of one host with one volume are fine)",
        )
    versions = Counter(one.version for one in living if one.version)
    if len(versions) > 1:
        found = ", ".join(f"{version} ({number})" for version, number in sorted(versions.items()))
        yield Finding("versions", Level.WARNING, f"workers run different versions: {found}")
    late = [one for one in living if one.lag is not None and one.lag > LATE_LOOP]
    for one in late[:_MOST_NAMED]:
        yield Finding(
            "event loop",
            Level.WARNING,
            f"process {one.pid} on {one.host} was {times.lasting(one.lag or timedelta())} late: something in an "
            "`async def` blocks it",
        )


def _of_routes(read: Read) -> Iterator[Finding]:
    for one in read.unroutable[:_MOST_NAMED]:
        yield Finding(
            "names",
            Level.PROBLEM,
            f"{counted(one.count, 'task')} of {one.name} in queue {one.queue} would be taken by no worker: "
            f"{one.reason}",
        )
    if len(read.unroutable) > _MOST_NAMED:
        yield Finding("names", Level.PROBLEM, f"and {len(read.unroutable) - _MOST_NAMED} more")
    if not read.unroutable:
        yield Finding("names", Level.OK, "a worker takes each task that has waited for ten minutes")


def _of_pauses(paused: Paused) -> Iterator[Finding]:
    kinds = (("queues", paused.queues), ("task functions", paused.names), ("schedules", paused.schedules))
    for kind, found in kinds:
        if found:
            yield Finding("paused", Level.WARNING, f"{kind} {', '.join(sorted(found))}: `afterwards resume` ends it")
    if not any(found for _, found in kinds):
        yield Finding("paused", Level.OK, "nothing is paused")


def _of_wait(stats: Stats) -> Finding:
    queued = sum(number for (_, state), number in stats.counts.items() if state is State.QUEUED)
    if stats.oldest is None:
        return Finding("waiting", Level.OK, "no task waits for a worker")
    level = Level.WARNING if stats.oldest > LONG_WAIT else Level.OK
    return Finding("waiting", level, f"{counted(queued, 'task')} queued, the first for {times.lasting(stats.oldest)}")


def of_file(file: FileDiagnosis) -> Iterator[Finding]:
    """Yield the findings about a SQLite file and its place."""
    if file.has_wal_reset_bug and not file.takes_turns:
        text = f"install 3.51.3, or use one process only: {file.version} can damage a file that two processes write"
        yield Finding("sqlite", Level.WARNING, text)
    else:
        yield Finding("sqlite", Level.OK, file.version + ("; writers take turns" if file.has_wal_reset_bug else ""))
    yield Finding("file system", Level.OK, file.file_system or "unknown: this system does not tell")
    if file.read_by_others:
        yield Finding("permissions", Level.WARNING, "other users of this machine may read the file: chmod 600")
    space = f"the file has {_bytes(file.size)}, {_bytes(file.free)} are free"
    yield Finding("space", Level.WARNING if file.free < max(LITTLE_SPACE, file.size) else Level.OK, space)


def of_database(version: int, *, pooled: bool, pending: int, now: datetime, here: datetime) -> Iterator[Finding]:
    """Yield the findings about a PostgreSQL database. ``here`` is this host's time when ``now`` was the server's."""
    yield Finding("postgresql", Level.OK, f"{version // 10000}.{version % 10000}")
    if pooled:
        yield Finding("pooler", Level.OK, "there is one, as PgBouncer: workers poll instead of being notified")
    if pending:
        yield Finding(
            "migrations", Level.PROBLEM, f"{counted(pending, 'statement')} not run yet: run `afterwards migrate`"
        )
    else:
        yield Finding("migrations", Level.OK, "the tables are up to date")
    difference = abs(now - here)
    if difference > CLOCK_DIFFERENCE:
        text = f"this host's differs from the server's by {times.lasting(difference)}: synchronize them (NTP)"
        yield Finding("clock", Level.WARNING, text)
    else:
        yield Finding("clock", Level.OK, "this host's agrees with the server's")


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
