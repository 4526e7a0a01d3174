"""``afterwards stats``: how much waits, runs, succeeds and fails; live with ``--watch``."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from afterwards.cli import output, times
from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.store import named, run
from afterwards.core.tallies import Ends, total
from afterwards.core.task import State
from afterwards.engine import Engine, Stats
from afterwards.worker.live_processes import live_workers

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C. With --json, a line each time.")]
Every = Annotated[float, typer.Option("--every", min=0.2, metavar="SECONDS", help="The time between two looks.")]

SPANS = {
    "hour": (timedelta(hours=1), timedelta(minutes=5)),
    "day": (timedelta(days=1), timedelta(hours=1)),
    "week": (timedelta(days=7), timedelta(hours=6)),
}
"""The spans in which ended attempts are counted, and the steps in which the engine is asked for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The numbers that ``stats`` shows."""

    stats: Stats
    ends: dict[str, Ends]  # by the name of the span
    workers: int

    def of_state(self, state: State) -> int:
        return self.stats.by_state.get(state, 0)


def stats(watch: Watch = False, every: Every = 2.0, as_json: AsJson = False, url: Url = None, app: App = None) -> None:
    """Show what waits, runs, succeeds and fails.

    It shows the number of tasks in each state, the longest wait, the live workers, and the attempts that ended lately.
    """

    async def looks(engine: Engine) -> None:
        if watch and not as_json and output.console().is_terminal:
            await _live(engine, every)
            return
        while True:
            _told(await numbers(engine), as_json=as_json)
            if not watch:
                return
            await asyncio.sleep(every)

    try:
        run(named(url, app), looks)
    except KeyboardInterrupt:
        if not watch:
            raise


async def numbers(engine: Engine) -> Numbers:
    ends = {
        name: total([tally.ends for tally in await engine.tallies(span, step)]) for name, (span, step) in SPANS.items()
    }
    return Numbers(stats=await engine.stats(), ends=ends, workers=len(await live_workers(engine)))


async def _live(engine: Engine, every: float) -> None:
    with Live(console=output.console(), auto_refresh=False, transient=False) as live:
        while True:
            live.update(Group(*_lines(await numbers(engine))), refresh=True)
            await asyncio.sleep(every)


def _told(found: Numbers, *, as_json: bool) -> None:
    if as_json:
        output.json_line(_json(found))
    else:
        output.show(Group(*_lines(found)))


def _lines(found: Numbers) -> list[Text]:
    lines = [
        Text.assemble((f"{state:<10}", output.STYLES.get(state, "")), f"{found.of_state(state):>10,}")
        for state in State
    ]
    waits = "nothing waits" if found.stats.oldest is None else f"for {times.lasting(found.stats.oldest)}"
    lines.append(Text(f"longest wait  {waits}"))
    lines.append(Text(f"workers       {found.workers} alive" if found.workers else "workers       none is alive"))
    lines.append(Text(f"{'attempts':<14}{'succeeded':>12}{'failed':>12}{'retried':>12}", "bold"))
    for name, ends in found.ends.items():
        lines.append(Text(f"last {name:<9}{ends.succeeded:>12,}{ends.failed:>12,}{ends.retried:>12,}"))
    return lines


def _json(found: Numbers) -> dict[str, Any]:
    queues: dict[str, dict[str, int]] = {}
    for (queue, state), number in sorted(found.stats.counts.items()):
        queues.setdefault(queue, {})[str(state)] = number
    return {
        "states": {str(state): found.of_state(state) for state in State},
        "queues": queues,
        "oldest": None if found.stats.oldest is None else found.stats.oldest.total_seconds(),
        "workers": found.workers,
        "ended": {name: ends._asdict() for name, ends in found.ends.items()},
    }
