"""``afterwards move``: take everything over from one store to another."""

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from afterwards import engines
from afterwards.cli import asking, output
from afterwards.cli.errors import CommandError, ExitCode, UsageError, store_error
from afterwards.cli.mover import Moved, refuse_live_workers, refuse_same_store
from afterwards.cli.mover import move as move_all
from afterwards.cli.options import AsJson
from afterwards.cli.store import check, opened
from afterwards.core.errors import EngineError
from afterwards.core.urls import parse
from afterwards.engine import Engine, PutBack, Query

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="The URL of the store to empty.", show_default=False)]
Destination = Annotated[
    str | None, typer.Argument(metavar="DESTINATION", help="The URL of the store to fill.", show_default=False)
]
PutBackOption = Annotated[
    bool, typer.Option("--put-back", help="Store what was on its way to a store that is gone in SOURCE again.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

MOST_SHOWN = 10
"""Ids that are listed."""


def move(
    source: Source,
    destination: Destination = None,
    put_back: PutBackOption = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Move everything from one store to another.

    Tasks, pauses, schedules and files are moved.

    Stop every process that uses SOURCE first. Workers of DESTINATION may run.
    If the command is interrupted or killed, run it again: it goes on where it
    was, loses nothing and moves nothing twice. Until then, no worker sees the
    tasks of the last batch, 500 at most. If DESTINATION is gone for good, give
    --put-back and only SOURCE: it stores that batch in SOURCE again.
    """
    check(source)
    if put_back and destination is not None:
        raise UsageError("--put-back stores in SOURCE: leave out DESTINATION")
    work = _put_back(source, yes, as_json) if put_back else _move(source, _checked(source, destination), yes, as_json)
    try:
        code = asyncio.run(work)
    except EngineError as error:
        raise store_error(error, f"{error}. Nothing is lost: run the same command again to go on") from error
    raise typer.Exit(code)


def _checked(source: str, destination: str | None) -> str:
    """Return the URL of the destination. Raises UsageError, StoreUnreachable."""
    if destination is None:
        raise UsageError("DESTINATION is missing: give the URL of the store to fill")
    check(destination, create=True)
    if _is_same(source, destination):
        raise UsageError(f"{engines.shown(source)} is both source and destination: give another destination")
    return destination


def _is_same(source: str, destination: str) -> bool:
    one, other = parse(source), parse(destination)
    if one.kind != "sqlite" or other.kind != "sqlite":
        return one.text == other.text
    files = Path(one.file).absolute(), Path(other.file).absolute()
    return files[0] == files[1] or (files[1].exists() and os.path.samefile(*files))


async def _move(source: str, destination: str, yes: bool, as_json: bool) -> ExitCode:
    names = engines.shown(source), engines.shown(destination)
    async with opened(source) as emptied:
        await refuse_live_workers(emptied)
        tasks = await _number_of_tasks(emptied)
        _ask(tasks, *names, yes=yes)
        async with opened(destination, create=True) as filled:
            if parse(source).kind == parse(destination).kind != "sqlite":
                await refuse_same_store(emptied, filled)
            moved = await _with_progress(emptied, filled, names[1], tasks)
        listed = len(await emptied.find(Query(limit=MOST_SHOWN)))  # some damaged records are only counted here
        return _told(moved, max(listed, await _number_of_tasks(emptied)), *names, as_json=as_json)


async def _number_of_tasks(engine: Engine) -> int:
    return sum((await engine.stats()).counts.values())


def _ask(tasks: int, source: str, destination: str, *, yes: bool) -> None:
    if yes:
        return
    asking.must_be_possible("whether to move the tasks")
    output.say(
        f"This moves {output.counted(tasks, 'task')} from {source} to {destination}. "
        "No process may use the source meanwhile."
    )
    if not asking.agreed("Move them?"):
        raise CommandError("nothing was moved")


async def _put_back(source: str, yes: bool, as_json: bool) -> ExitCode:
    name = engines.shown(source)
    async with opened(source) as engine:
        if not yes:
            asking.must_be_possible("whether to put the tasks back")
            output.say(
                f"The batch of an interrupted move will be stored in {name} again. Nobody knows here whether the other "
                "store has it, too: if it does and workers use it, the same tasks run there. No `afterwards move` may "
                "run meanwhile."
            )
            if not asking.agreed("Put it back?"):
                raise CommandError("nothing was put back")
        put = await engine.put_back()
    if as_json:
        output.json_line(_put_back_as_json(put))
    elif put is None:
        typer.echo(f"nothing was on its way from {name}")
    else:
        typer.echo(f"put {_count(len(put.batch.tasks), 'task')} back that were on their way to {put.batch.to}")
        _print_left_out(put.arrived.known, put.arrived.without_keys)
    return ExitCode.DONE


def _put_back_as_json(put: PutBack | None) -> dict[str, object]:
    if put is None:
        return {"to": None, "tasks": 0, "known": [], "without_keys": []}
    arrived = put.arrived
    return {
        "to": put.batch.to,
        "tasks": len(put.batch.tasks),
        "known": [*arrived.known],
        "without_keys": [*arrived.without_keys],
    }


async def _with_progress(source: Engine, destination: Engine, to: str, tasks: int) -> Moved:
    columns = TextColumn("moving tasks"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with _stop_on_signals() as stopped, Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("tasks", total=tasks)

        def report(moved: Moved) -> None:
            bar.update(shown, completed=moved.tasks, total=max(tasks, moved.tasks))

        return await move_all(source, destination, to, report=report, stopped=stopped.is_set)


@contextmanager
def _stop_on_signals() -> Iterator[asyncio.Event]:
    """Provide an event that the first Ctrl-C or SIGTERM sets. The second one ends the process."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop.set)
        restore()

    for number in before:
        signal.signal(number, hear)
    try:
        yield stop
    finally:
        restore()


def _told(moved: Moved, left: int, source: str, destination: str, *, as_json: bool) -> ExitCode:
    """Print what was moved. Returns the exit code."""
    if as_json:
        output.json_line(
            {
                "tasks": moved.tasks,
                "schedules": moved.schedules,
                "bytes": moved.bytes,
                "known": moved.known,
                "without_keys": moved.without_keys,
                "finished": moved.finished,
                "left": left,
            }
        )
    else:
        _print(moved, source, destination)
    if not moved.finished:
        raise CommandError("interrupted. Nothing is lost: run the same command again to go on")
    if left:
        raise CommandError(
            f"{_count(left, 'task')} stayed in {source}: this version of afterwards cannot read them. Move them "
            "with the version that wrote them"
        )
    return ExitCode.DONE


def _print(moved: Moved, source: str, destination: str) -> None:
    files = f", {moved.bytes / 1_000_000:.1f} MB of files" if moved.bytes else ""
    schedules = f", {_count(moved.schedules, 'schedule')}" if moved.schedules else ""
    typer.echo(f"moved {_count(moved.tasks, 'task')}{schedules}{files} from {source} to {destination}")
    _print_left_out(moved.known, moved.without_keys)


def _print_left_out(known: Sequence[str], without_keys: Sequence[str]) -> None:
    if known:
        typer.echo(f"{_count(len(known), 'task')} with the id of one there stayed out: {_listed(known)}")
    if without_keys:
        typer.echo(
            f"{_count(len(without_keys), 'task')} came without a unique or idempotency key that another task "
            f"there has: {_listed(without_keys)}"
        )


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(ids[:MOST_SHOWN]) + (", …" if len(ids) > MOST_SHOWN else "")
