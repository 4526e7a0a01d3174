"""``afterwards workers``: the processes that run tasks, and what each of them runs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, NamedTuple

import typer

from afterwards.cli import output, times
from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.store import named, run
from afterwards.client.steering import Filter, listed
from afterwards.core.routing import ALIVE, FORGOTTEN_AFTER, LiveWorker
from afterwards.core.task import State, Task
from afterwards.engine import Engine

MOST_RUNNING = 1000
"""Running tasks that are looked at for their workers."""

All = Annotated[bool, typer.Option("--all", "-a", help="List those of the last day that are gone, too.")]


class Team(NamedTuple):
    """Workers, and the tasks that each of them runs."""

    workers: Sequence[LiveWorker]
    running: Mapping[str, Sequence[Task]]  # by the worker's id


def workers(gone: All = False, as_json: AsJson = False, url: Url = None, app: App = None) -> None:
    """List the live workers, and how much each of them runs; and the processes that dispatch tasks to a fleet.

    The lag is how late its event loop was since its last sign of life.
    """
    team = run(named(url, app), lambda engine: team_of(engine, FORGOTTEN_AFTER if gone else ALIVE))
    members = [one for one in team.workers if gone or not one.has_left]
    if as_json:
        output.json_line([_json(one, team.running.get(one.id, ())) for one in members])
        return
    now = times.now()
    if members:
        output.table(
            ["host", "process", "started", "seen", "queues", "runs", "lag", ""],
            [_row(one, team.running.get(one.id, ()), now) for one in members],
            numbers=["runs", "lag"],
        )
    else:
        output.say("no worker is alive. `afterwards worker` starts one, and so does the application's server")


async def team_of(engine: Engine, since: timedelta = ALIVE) -> Team:
    """Return the workers that were seen within a span, and the tasks that they run."""
    found = await engine.workers(since)
    tasks = await listed(engine, Filter(states=frozenset({State.RUNNING})), limit=MOST_RUNNING)
    running: defaultdict[str, list[Task]] = defaultdict(list)
    for task in tasks.tasks:
        if task.worker is not None:
            running[task.worker].append(task)
    return Team(found, running)


def _row(worker: LiveWorker, tasks: Sequence[Task], now: datetime) -> Sequence[str]:
    return [
        worker.host,
        worker.pid,
        times.ago(worker.started_at, now),
        times.ago(worker.seen_at, now),
        "all" if worker.queues is None else ",".join(sorted(worker.queues)),
        _load(worker, tasks),
        "" if worker.lag is None else f"{worker.lag.total_seconds() * 1000:.0f} ms",
        _standing(worker),
    ]


def _load(worker: LiveWorker, tasks: Sequence[Task]) -> str:
    """Return how much it runs, of how much it may: plain functions, too."""
    runs = len(tasks) + len(worker.running)
    return str(runs) if worker.dispatches else f"{runs}/{worker.slots}"


def _standing(worker: LiveWorker) -> str:
    if worker.has_left:
        return "has left"
    return "dispatches" if worker.dispatches else ""


def _json(worker: LiveWorker, tasks: Sequence[Task]) -> dict[str, Any]:
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "started_at": times.iso(worker.started_at),
        "seen_at": times.iso(worker.seen_at),
        "has_left": worker.has_left,
        "queues": None if worker.queues is None else sorted(worker.queues),
        "names": sorted(worker.names),
        "slots": worker.slots,
        "dispatches": worker.dispatches,
        "lag": None if worker.lag is None else worker.lag.total_seconds(),
        "tasks": [{"id": task.id, "name": task.name, "started_at": times.iso(task.started_at)} for task in tasks],
        "plain": [
            {"name": one.name, "started_at": times.iso(one.started_at), "origin": one.origin} for one in worker.running
        ],
    }
