"""``afterwards queues``: what waits, runs and has ended in each queue."""

from typing import Any

from afterwards.cli import output
from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.store import named, run
from afterwards.core.task import State
from afterwards.engine import Engine, Paused, Stats


def queues(as_json: AsJson = False, url: Url = None, app: App = None) -> None:
    """List the queues, with the number of tasks in each state."""

    async def both(engine: Engine) -> tuple[Stats, Paused]:
        return await engine.stats(), await engine.paused()

    stats, paused = run(named(url, app), both)
    found = of_stats(stats, paused)
    if as_json:
        output.json_line(found)
        return
    states = [str(state) for state in State]
    rows = [[one["queue"], *(f"{one[state]:,}" for state in states), _status(one)] for one in found]
    if rows:
        output.table(["queue", *(_heading(state) for state in states), ""], rows, numbers=list(map(_heading, states)))
    else:
        output.say("no tasks are stored here. `afterwards enqueue NAME` stores one, as add_task does in a request")
    if paused.names:
        output.say(f"paused task functions: {', '.join(sorted(paused.names))}")
    if paused.schedules:
        output.say(f"paused schedules: {', '.join(sorted(paused.schedules))}")


def of_stats(stats: Stats, paused: Paused) -> list[dict[str, Any]]:
    """Return each queue with its number of tasks in each state, by name; also paused ones without tasks."""
    names = sorted({queue for queue, _ in stats.counts} | paused.queues)
    return [
        {
            "queue": name,
            **{str(state): stats.counts.get((name, state), 0) for state in State},
            "paused": name in paused.queues,
        }
        for name in names
    ]


def _heading(state: str) -> str:
    """Return the state in so few letters that seven of them fit 80 columns."""
    return {"scheduled": "sched.", "succeeded": "succ.", "cancelled": "canc."}.get(state, state)


def _status(queue: dict[str, Any]) -> str:
    return "paused" if queue["paused"] else ""
