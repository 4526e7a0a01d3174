"""The tasks that somebody names on the command line: by ids, or by a filter."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from afterwards.cli import times
from afterwards.cli.errors import CommandError, UsageError
from afterwards.client.steering import Filter
from afterwards.core.task import State, Task
from afterwards.engine import Engine, Query

FULL_ID, SHORTEST_ID = 36, 8

_MOST_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The values of a command's options. Empty means any."""

    ids: Sequence[str] | None = None
    states: Sequence[str] | None = None
    names: Sequence[str] | None = None
    queues: Sequence[str] | None = None
    text: str | None = None
    since: str | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.ids or self.has_filter)

    @property
    def has_filter(self) -> bool:
        return any(
            value is not None and value != [] for value in (self.states, self.names, self.queues, self.text, self.since)
        )

    def filter(self) -> Filter:
        """Return the filter, without ids. Raises UsageError."""
        states = _several(self.states, "--state")
        if self.text is not None and not self.text.strip():
            raise UsageError("--text is empty: give some text, or leave it out")
        return Filter(
            states=None if states is None else frozenset(map(_state, sorted(states))),
            names=_several(self.names, "--name"),
            queues=_several(self.queues, "--queue"),
            text=self.text,
            since=None if self.since is None else times.instant(self.since),
        )


async def identified(engine: Engine, given: Sequence[str]) -> list[Task]:
    """Return the tasks with these ids, or with ids that begin so, each once. Raises CommandError for an unknown id."""
    ids = list(dict.fromkeys(id.strip().lower() for id in given))
    full = [id for id in ids if len(id) == FULL_ID]
    found = await engine.get(full)
    unknown = [] if len(found) == len(full) else [id for id in full if id not in {task.id for task in found}]
    for start in ids:
        if len(start) != FULL_ID:
            begun = await _begins_with(engine, start)
            found += begun
            unknown += [] if begun else [start]
    if unknown:
        raise CommandError(
            f"no task has the id {_listed(unknown)}: it was never stored here, or its retention is over. "
            "`afterwards list` shows those that are stored"
        )
    return list({task.id: task for task in found}.values())


async def _begins_with(engine: Engine, start: str) -> list[Task]:
    """Return the one task whose id begins so, as a list. Raises UsageError if there are several."""
    if not SHORTEST_ID <= len(start) < FULL_ID:
        raise UsageError(f"{start!r} is no id of a task: give its {FULL_ID} characters, or at least {SHORTEST_ID}")
    found = [task for task in await engine.find(Query(text=start, limit=100)) if task.id.startswith(start)]
    if len(found) > 1:
        raise UsageError(f"{start!r} begins {len(found)} ids: {_listed([task.id for task in found])}: give more of it")
    return await engine.get([task.id for task in found])


def _several(given: Sequence[str] | None, option: str) -> frozenset[str] | None:
    """Return the values of an option that may be repeated, or have several values separated by commas."""
    if not given:
        return None
    values = [part.strip() for one in given for part in one.split(",")]
    if not all(values):
        raise UsageError(f"{option} {','.join(given)!r} has an empty value: give one, or leave the option out")
    return frozenset(values)


def _state(text: str) -> State:
    try:
        return State(text.lower())
    except ValueError:
        near = get_close_matches(text.lower(), [*State], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"--state {text!r} is no state; {hint}There are {', '.join(State)}") from None


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_MOST_SHOWN]) + (f" and {len(ids) - _MOST_SHOWN} more" if len(ids) > _MOST_SHOWN else "")
