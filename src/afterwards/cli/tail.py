"""``afterwards tail``: what runs, with progress bars, and a line for each task that ends."""

import asyncio
from typing import Annotated

import typer

from afterwards.cli import output
from afterwards.cli.errors import ExitCode
from afterwards.cli.filters import Wanted, identified
from afterwards.cli.following import Following, Look
from afterwards.cli.options import App, AsJson, Names, Queues, Url
from afterwards.cli.store import named, run
from afterwards.cli.tail_output import Bars, Lines, LinesOfJson
from afterwards.core.task import State
from afterwards.engine import Engine

Id = Annotated[str | None, typer.Argument(metavar="ID", help="Only this task, until it has ended.", show_default=False)]
Every = Annotated[float, typer.Option("--every", min=0.1, metavar="SECONDS", help="The time between two looks.")]


def tail(
    id: Id = None,
    name: Names = None,
    queue: Queues = None,
    every: Every = 0.5,
    as_json: AsJson = False,
    url: Url = None,
    app: App = None,
) -> None:
    """Follow what runs, with progress bars, until Ctrl-C. A line is printed for each task that ends.

    With an id, only that task is followed until it has ended: exit code 0 if it succeeded, else 1. With --json, each
    line is the record of a task that has ended.
    """
    chosen = Wanted(names=name, queues=queue).filter()
    store = named(url, app)
    shown = LinesOfJson() if as_json else Bars() if output.console().is_terminal else Lines()

    async def followed(engine: Engine) -> ExitCode:
        with shown:
            if id is not None:
                return await _one(engine, id, shown, every)
            following = Following(engine, chosen)
            await following.begin()
            output.say(f"following {store.shown}: a line is printed for each task that ends, until Ctrl-C")
            while True:
                shown.look(await following.look())
                await asyncio.sleep(every)

    try:
        raise typer.Exit(run(store, followed))
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.DONE if id is None else ExitCode.INTERRUPTED) from None


async def _one(engine: Engine, id: str, shown: Lines, every: float) -> ExitCode:
    """Follow one task to its end. Returns the exit code."""
    [task] = await identified(engine, [id])
    while not task.state.finished:
        shown.look(Look(running=[task] if task.state is State.RUNNING else []))
        await asyncio.sleep(every)
        [task] = await identified(engine, [task.id])
    shown.ended(task, with_logs=True)
    return ExitCode.DONE if task.state is State.SUCCEEDED else ExitCode.FAILED
