"""Acts of people on many tasks at once: list, count, requeue, cancel, start and delete those that a filter names.

The command line, the dashboard and ``Afterwards`` use the same functions, on an engine.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import dropwhile
from typing import NamedTuple, TypeVar

from afterwards.core.errors import UnknownTask
from afterwards.core.task import FINISHED, State, Task
from afterwards.engine import Engine, Query

T = TypeVar("T")

PAGE = 100
"""Tasks in a page of a list, unless another number is asked for."""

MOST_LISTED = 1000
"""The most tasks in one page."""

MOST_CHARACTERS = 4_000_000
"""Characters of stored values after which a page ends: a hundred tasks may have thirty megabytes."""

MOST_COUNTED = 100_000
"""Matching tasks are counted up to this number, and as many are changed by one call."""

_PIECE = 500
"""Tasks that are changed by one call of the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The tasks that somebody means. None means any; with ``ids``, only these."""

    ids: tuple[str, ...] | None = None
    states: frozenset[State] | None = None
    names: frozenset[str] | None = None
    queues: frozenset[str] | None = None
    text: str | None = None  # by the rule of ``core.search``
    since: datetime | None = None  # finished then or later; if not finished, added then or later

    def query(self, *, limit: int, before: str | None = None) -> Query:
        return Query(
            states=self.states,
            names=self.names,
            queues=self.queues,
            text=self.text,
            since=self.since,
            before=before,
            limit=limit,
        )

    def only(self, states: Collection[State]) -> "Filter":
        """Return the filter for those of its tasks that are in one of these states."""
        wanted = frozenset(states) if self.states is None else self.states & frozenset(states)
        return replace(self, states=wanted)


class Page(NamedTuple):
    """A part of a list of tasks, newest first."""

    tasks: list[Task]
    next: str | None  # continue with ``before=next``; None at the end


async def listed(engine: Engine, wanted: Filter, *, limit: int = PAGE, before: str | None = None) -> Page:
    """Return a page of the tasks that a filter names; ``before`` continues below a listed task."""
    if wanted.ids is not None:
        return Page([task for task in await engine.get(wanted.ids) if _fits(task, wanted)], None)
    found = await engine.find(wanted.query(limit=limit + 1, before=before))
    return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


async def continued(engine: Engine, wanted: Filter, *, limit: int = PAGE, before: str | None = None) -> Page:
    """Return a page as ``listed``, for somebody who may ask for it much later than for the page before.

    It ends early, after one task at least, when its tasks are large. Raises UnknownTask if the task to continue below
    was deleted meanwhile, because the list would seem to end there.
    """
    page = await _within_characters(engine, wanted, limit, before)
    if before is not None and not page.tasks and all(task.id != before for task in await engine.get([before])):
        raise UnknownTask(before)
    return page


async def _within_characters(engine: Engine, wanted: Filter, limit: int, before: str | None) -> Page:
    tasks: list[Task] = []
    size = 0
    while True:
        page = await listed(engine, wanted, limit=min(limit - len(tasks), PAGE), before=before)
        for task in page.tasks:
            tasks.append(task)
            size += _size(task)
            if size >= MOST_CHARACTERS:
                return Page(tasks, page.next if task is page.tasks[-1] else task.id)
        if page.next is None and not page.tasks and tasks:
            return Page(tasks, before)  # the last one was deleted meanwhile: whoever continues is told
        if page.next is None or len(tasks) >= limit:
            return Page(tasks, page.next)
        before = page.next


def _size(task: Task) -> int:
    """Return the characters of what may be large in a list."""
    texts = (task.arguments, task.result, task.context, *(failure.message for failure in task.failures))
    return sum(len(text) for text in texts if text)


async def counted(engine: Engine, wanted: Filter, *, most: int = MOST_COUNTED) -> int:
    """Return the number of tasks that a filter names, at most ``most``."""
    if wanted.ids is not None:
        return len((await listed(engine, wanted)).tasks)
    return await engine.count(wanted.query(limit=most))


async def requeue(engine: Engine, wanted: Filter) -> int:
    """Queue finished tasks again. Returns how many were queued, without those that came back because of them."""
    return await _changed(engine, wanted.only(FINISHED), engine.requeue)


async def cancel(engine: Engine, wanted: Filter, reason: str) -> int:
    """Cancel unfinished tasks. Returns how many were cancelled, or asked to stop because they run."""

    async def cancelled(ids: Sequence[str]) -> list[Task]:
        return await engine.cancel(ids, reason)

    return await _changed(engine, wanted.only(frozenset(State) - FINISHED), cancelled)


async def start_now(engine: Engine, wanted: Filter) -> int:
    """Queue tasks whose time has not come yet. Returns how many."""
    return await _changed(engine, wanted.only({State.SCHEDULED}), engine.start_now)


async def delete(engine: Engine, wanted: Filter) -> int:
    """Delete the records of finished tasks. Returns how many."""
    return await _changed(engine, wanted.only(FINISHED), engine.delete)


async def _changed(engine: Engine, wanted: Filter, change: Callable[[Sequence[str]], Awaitable[list[T]]]) -> int:
    """Change the tasks that a filter names, in pieces. All are found first: a changed task may match no more."""
    ids = await _ids(engine, wanted)
    return sum([len(await change(piece)) for piece in _pieces(ids)])


async def _ids(engine: Engine, wanted: Filter) -> list[str]:
    if wanted.ids is not None:
        return [task.id for task in (await listed(engine, wanted)).tasks]
    found: list[str] = []
    async for page in pages(engine, wanted.query(limit=MOST_LISTED)):
        found += [task.id for task in page]
        if len(found) >= MOST_COUNTED:
            break
    return found


async def pages(engine: Engine, query: Query) -> AsyncIterator[Sequence[Task]]:
    """Yield all tasks that match, ``query.limit`` at a time, also while others delete some or all of those yielded.

    A record whose id cannot be read has none, and so tells no place to go on. After a page without any id, it ends.
    """
    yielded: list[str] = []
    page = await engine.find(query)
    while page:
        yield page
        named = [task.id for task in page if task.id]
        if not named:
            return
        yielded += named
        below = await _below(engine, query, yielded)
        page = below if page[-1].id else [*dropwhile(lambda task: not task.id, below)]  # those were yielded, too


async def _below(engine: Engine, query: Query, yielded: Sequence[str]) -> list[Task]:
    """Return the page after these tasks. If the last one was deleted meanwhile, continue below the last that is left.

    If none is left, everything that matches is still to come.
    """
    last: str | None = yielded[-1]
    while last is not None:
        found = await engine.find(replace(query, before=last))
        if found or await engine.get([last]):
            return found
        last = await _last_left(engine, yielded)
    return await engine.find(query)


async def _last_left(engine: Engine, ids: Sequence[str]) -> str | None:
    for end in range(len(ids), 0, -_PIECE):
        piece = ids[max(0, end - _PIECE) : end]
        left = {task.id for task in await engine.get(piece)}
        for id in reversed(piece):
            if id in left:
                return id
    return None


def _pieces(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _PIECE] for start in range(0, len(ids), _PIECE))


def _fits(task: Task, wanted: Filter) -> bool:
    """Return True if a task that was named by its id is in one of the states, too."""
    return wanted.states is None or task.state in wanted.states
