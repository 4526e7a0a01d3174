"""The parts that ``pause`` and ``resume`` share: the queues, task functions and schedules that they name."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import typer

from afterwards.cli import output
from afterwards.cli.errors import CommandError, UsageError
from afterwards.cli.store import Store, run
from afterwards.core.errors import InvalidOption
from afterwards.core.names import check_name
from afterwards.engine import Engine, Paused
from afterwards.tasks.registry import registry

QueueArguments = Annotated[
    list[str] | None, typer.Argument(metavar="QUEUE", help="Names of queues.", show_default=False)
]
QueueOptions = Annotated[
    list[str] | None, typer.Option("--queue", "-q", metavar="QUEUE", help="A queue; may be repeated.")
]
NameOptions = Annotated[
    list[str] | None, typer.Option("--name", "-n", metavar="NAME", help="A task function; may be repeated.")
]
ScheduleOptions = Annotated[
    list[str] | None,
    typer.Option("--schedule", metavar="NAME", help="The schedule of a task function; may be repeated."),
]


def named_things(
    queues: Sequence[str] | None, names: Sequence[str] | None, schedules: Sequence[str] | None, store: Store
) -> Paused:
    """Return what is to be paused or resumed. Of an application's task functions, the earlier names count, too.

    Raises UsageError.
    """
    if not (queues or names or schedules):
        raise UsageError("nothing is named: give a queue, or --name for a task function, or --schedule for a schedule")
    try:
        for kind, given in (("queue", queues), ("task function", names), ("schedule", schedules)):
            for one in given or ():
                check_name(kind, one)
    except InvalidOption as error:
        raise UsageError(str(error)) from error
    known = {} if store.client is None else {one.name: one for one in registry}
    also = {alias for name in names or () if name in known for alias in known[name].aliases}
    identities = frozenset(known[name].identity if name in known else name for name in schedules or ())
    return Paused(queues=frozenset(queues or ()), names=frozenset(names or ()) | also, schedules=identities)


def change(
    store: Store, things: Paused, pause_or_resume: Callable[[Engine], Awaitable[None]], *, as_json: bool
) -> None:
    """Pause or resume, and print everything that is paused then. Raises CommandError."""

    async def changed(engine: Engine) -> Paused:
        await _check_schedules(engine, things, store)
        await pause_or_resume(engine)
        return await engine.paused()

    _told(run(store, changed), as_json=as_json)


async def _check_schedules(engine: Engine, things: Paused, store: Store) -> None:
    """Raise CommandError for a schedule that does not exist. Register those of the application."""
    ours = {one.identity: str(one.schedule) for one in registry if one.schedule} if store.client else {}
    asked = {name: ours[name] for name in things.schedules & ours.keys()}
    stored = {one.name for one in await engine.register_schedules(asked)}
    if unknown := sorted(things.schedules - stored):
        known = f"there are {', '.join(sorted(stored | ours.keys()))}" if stored | ours.keys() else "there are none"
        raise CommandError(f"no task function named {', '.join(unknown)} has a schedule here: {known}")


def _told(paused: Paused, *, as_json: bool) -> None:
    """Print everything that is paused now."""
    kinds = {"queues": paused.queues, "names": paused.names, "schedules": paused.schedules}
    if as_json:
        output.json_line({"paused": {kind: sorted(found) for kind, found in kinds.items()}})
        return
    for kind, found in kinds.items():
        if found:
            output.line(f"paused {kind.replace('names', 'task functions')}: {', '.join(sorted(found))}")
    output.flush()
    if not any(kinds.values()):
        output.say("nothing is paused")
