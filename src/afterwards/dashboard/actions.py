"""The actions of visitors: each is logged with who did it."""

from enum import StrEnum

from afterwards import telemetry
from afterwards.client import steering
from afterwards.client.steering import Filter
from afterwards.dashboard.site import Site
from afterwards.engine import Paused


class Action(StrEnum):
    """An action on tasks."""

    REQUEUE = "requeue"
    CANCEL = "cancel"
    DELETE = "delete"
    START = "start"


async def perform(site: Site, action: Action, wanted: Filter) -> int:
    """Do something with the tasks that a filter names. Returns how many were changed."""
    engine = await site.engine()
    match action:
        case Action.REQUEUE:
            changed = await steering.requeue(engine, wanted)
        case Action.CANCEL:
            changed = await steering.cancel(engine, wanted, f"cancelled in the dashboard by {site.who}")
        case Action.DELETE:
            changed = await steering.delete(engine, wanted)
        case Action.START:
            changed = await steering.start_now(engine, wanted)
    telemetry.acted(site.who, action, described(wanted), changed)
    return changed


async def pause(site: Site, paused: Paused) -> None:
    """Pause queues, task functions and schedules."""
    await (await site.engine()).pause(paused)
    telemetry.acted(site.who, "pause", _paused(paused))


async def resume(site: Site, paused: Paused) -> None:
    """End the pause of queues, task functions and schedules."""
    await (await site.engine()).resume(paused)
    telemetry.acted(site.who, "resume", _paused(paused))


MOST_IDS_SHOWN = 3


def described(wanted: Filter) -> str:
    """Return a filter in words, for the log.

    >>> described(Filter(ids=("0192", "0193")))
    'tasks 0192, 0193'
    >>> described(Filter(queues=frozenset({"mail"}), text="anna"))
    "tasks with queue=mail, text='anna'"
    >>> described(Filter())
    'all tasks'
    """
    if wanted.ids is not None:
        more = len(wanted.ids) - MOST_IDS_SHOWN
        return f"tasks {', '.join(wanted.ids[:MOST_IDS_SHOWN])}" + (f" and {more} more" if more > 0 else "")
    said = [
        f"{name}={','.join(sorted(values))}"
        for name, values in (("state", wanted.states), ("name", wanted.names), ("queue", wanted.queues))
        if values is not None
    ]
    said += [f"text={wanted.text!r}"] if wanted.text is not None else []
    said += [f"since={wanted.since.isoformat()}"] if wanted.since is not None else []
    return f"tasks with {', '.join(said)}" if said else "all tasks"


def _paused(paused: Paused) -> str:
    kinds = (("queue", paused.queues), ("task function", paused.names), ("schedule", paused.schedules))
    return ", ".join(f"{kind} {name}" for kind, names in kinds for name in sorted(names))
