"""What one enqueue stores: which calls other tasks answer for, who comes after whom, and which queue is full."""

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
    """Which of a task's keys there may be only one of."""

    IDEMPOTENCY = "idempotency"  # among all tasks
    UNIQUE = "unique"  # among those that have not finished


class Key(NamedTuple):
    """What makes a call a duplicate of a task that has the same."""

    kind: KeyKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The stored tasks that matter to an enqueue."""

    by_id: Mapping[str, Task] = field(default_factory=dict)
    """By the ids of ``needed_ids``, also those that are the ids of calls for which another task stands."""

    by_key: Mapping[Key, Task] = field(default_factory=dict)
    """By the keys of ``keys_of``; by a unique key only tasks that have not finished."""


NOTHING_LOADED = Loaded()


class Stored(NamedTuple):
    """What an enqueue stores, and what it answers."""

    made: Sequence[Task]  # to be inserted, in this order
    aliases: Mapping[str, str]  # from now on these ids of calls stand for these tasks
    answers: list[Task]  # what stands for each of the calls, in their order


def needed_ids(tasks: Sequence[NewTask]) -> list[str]:
    """Return the ids of the calls, and of the tasks that they come after, each once."""
    return [*dict.fromkeys([*(new.id for new in tasks), *(new.after for new in tasks if new.after is not None)])]


def keys_of(new: NewTask | Task) -> Iterator[Key]:
    """The keys by which a task is looked for, in that order."""
    if new.idempotency_key is not None:
        yield Key(KeyKind.IDEMPOTENCY, new.idempotency_key)
    if new.unique_key is not None:
        yield Key(KeyKind.UNIQUE, new.unique_key)


def has_rules(new: NewTask) -> bool:
    """Return whether what is stored already may answer for a call, or refuse it."""
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

    A call that is stored already, or that another task answers for, makes no task. Who came after it by the order of
    a request alone comes after what it came after. With ``claim``, as many as it has slots are leased to it; give none
    where something older waits for the worker.
    """
    standing = {**loaded.by_id, **{task.id: task for task in loaded.by_id.values()}} if loaded.by_id else {}
    by_key = dict(loaded.by_key)
    made: list[Task] = []
    aliases: dict[str, str] = {}
    left_out: dict[str, str | None] = {}  # what those calls came after that another task answered for
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
    """Return the queues of which some call limits how much waits in them."""
    return {new.queue for new in tasks if new.max_queued is not None}


def full_queue(tasks: Iterable[NewTask], made: Sequence[Task], waiting: Mapping[str, int]) -> QueueFull | None:
    """Return the refusal of a queue that would have more that waits than a call allows; None stores them.

    ``waiting`` counts the pending tasks in the queues of ``limited_queues`` before these are stored, without what is
    set aside.
    """
    added = {task.id for task in made}
    allowed = {new.queue: new.max_queued for new in tasks if new.max_queued is not None and new.id in added}
    more = Counter(task.queue for task in made)
    for queue, most in allowed.items():
        if waiting.get(queue, 0) + more[queue] > most:
            return QueueFull(queue, most)
    return None


def _in_line(new: NewTask, standing: Mapping[str, Task], left_out: Mapping[str, str | None]) -> NewTask:
    """The call, behind the task that it comes after now that some of the calls are not stored."""
    after = new.after
    while new.chained and after is not None and after in left_out:
        after = left_out[after]
    if after is not None and after in standing:
        after = standing[after].id  # that may be the id of a call for which another task stands
    return new if after == new.after else replace(new, after=after)
