"""Decide what one enqueue stores: calls that other tasks answer for, the order of tasks, and full queues."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from afterwards.core import lifecycle
from afterwards.core.claim import NOTHING_PAUSED, Claim, Paused, may_lease
from afterwards.core.errors import QueueFull
from afterwards.core.task import NewTask, State, Task


class KeyKind(StrEnum):
    """The kinds of a task's keys that must be unique."""

    IDEMPOTENCY = "idempotency"  # among all tasks
    UNIQUE = "unique"  # among unfinished tasks


class Key(NamedTuple):
    """A key of a call. A call with the same key as a stored task is its duplicate."""

    kind: KeyKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The stored tasks that matter to an enqueue."""

    by_id: Mapping[str, Task] = field(default_factory=dict)
    """By the ids of ``needed_ids``, including the ids of calls for which another task stands."""

    by_key: Mapping[Key, Task] = field(default_factory=dict)
    """By the keys of ``keys_of``. A unique key finds only unfinished tasks."""


NOTHING_LOADED = Loaded()


class Stored(NamedTuple):
    """The tasks that an enqueue stores, and its answers."""

    made: Sequence[Task]  # to be inserted, in this order
    aliases: Mapping[str, str]  # ids of calls, with the tasks for which they stand from now on
    answers: list[Task]  # the task that stands for each of the calls, in their order


def needed_ids(tasks: Sequence[NewTask]) -> list[str]:
    """Return the ids of the calls and of their predecessors, each once."""
    return [*dict.fromkeys([*(new.id for new in tasks), *(new.after for new in tasks if new.after is not None)])]


def keys_of(new: NewTask | Task) -> Iterator[Key]:
    """Yield the keys by which a task is looked up, in that order."""
    if new.idempotency_key is not None:
        yield Key(KeyKind.IDEMPOTENCY, new.idempotency_key)
    if new.unique_key is not None:
        yield Key(KeyKind.UNIQUE, new.unique_key)


def has_rules(new: NewTask) -> bool:
    """Return whether stored tasks may answer for a call, or may make a queue refuse it."""
    return new.unique_key is not None or new.idempotency_key is not None or new.max_queued is not None


def store_all(
    tasks: Sequence[NewTask],
    loaded: Loaded,
    now: datetime,
    *,
    claim: Claim | None = None,
    paused: Paused = NOTHING_PAUSED,
) -> Stored:
    """Decide what is stored for these calls.

    A call that is stored already, or that another task answers for, makes no task. A task that came after it only by
    the order of a request then comes after its predecessor. With ``claim``, as many tasks as it has slots are leased to
    it. Give no claim if an older task waits for the worker.
    """
    standing = {**loaded.by_id, **{task.id: task for task in loaded.by_id.values()}} if loaded.by_id else {}
    by_key = dict(loaded.by_key)
    made: list[Task] = []
    aliases: dict[str, str] = {}
    left_out: dict[str, str | None] = {}  # the predecessors of calls that another task answered for
    slots = claim.limit if claim else 0
    for new in tasks:
        if new.id in standing:
            continue
        before = None
        if new.after is not None:
            new = _in_line(new, standing, left_out)
            before = standing.get(new.after or "")
        is_keyed = new.unique_key is not None or new.idempotency_key is not None
        if is_keyed and (twin := next((by_key[key] for key in keys_of(new) if key in by_key), None)):
            standing[new.id] = standing[twin.id] = twin
            aliases[new.id], left_out[new.id] = twin.id, new.after
            continue
        offer = claim if claim and slots > 0 and may_lease(claim, paused, new) else None
        task = lifecycle.store(new, before, now, offer)
        slots -= task.state is State.RUNNING
        standing[task.id] = task
        made.append(task)
        if is_keyed:
            by_key |= {key: task for key in keys_of(task) if not (key.kind is KeyKind.UNIQUE and task.state.finished)}
    return Stored(made, aliases, [standing[new.id] for new in tasks])


def limited_queues(tasks: Iterable[NewTask]) -> set[str]:
    """Return the queues for which some call limits the number of waiting tasks."""
    return {new.queue for new in tasks if new.max_queued is not None}


def full_queue(tasks: Iterable[NewTask], made: Sequence[Task], waiting: Mapping[str, int]) -> QueueFull | None:
    """Return the refusal if a queue would hold more waiting tasks than a call allows, None if the calls may be stored.

    ``waiting`` counts the pending tasks in the queues of ``limited_queues`` before these are stored, without those that
    are set aside.
    """
    added = {task.id for task in made}
    allowed = {new.queue: new.max_queued for new in tasks if new.max_queued is not None and new.id in added}
    more = Counter(task.queue for task in made)
    for queue, most in allowed.items():
        if waiting.get(queue, 0) + more[queue] > most:
            return QueueFull(queue, most)
    return None


def _in_line(new: NewTask, standing: Mapping[str, Task], left_out: Mapping[str, str | None]) -> NewTask:
    """Return the call with its actual predecessor, given that some of the calls are not stored."""
    after = new.after
    while new.chained and after is not None and after in left_out:
        after = left_out[after]
    if after is not None and after in standing:
        after = standing[after].id  # `after` may be the id of a call for which another task stands
    return new if after == new.after else replace(new, after=after)
