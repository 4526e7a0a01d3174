"""Poll the engine for all clients that watch tasks, and give each of them the latest state.

There is one poller for each installation and event loop. It runs while anybody watches, and asks the engine once each
time, however many clients there are.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

from afterwards import telemetry
from afterwards.client.client import Client, running_loop
from afterwards.core.errors import EngineError
from afterwards.core.process_state import ProcessState
from afterwards.core.task import Task
from afterwards.engine import Engine, Query, Stats
from afterwards.web.watcher import Watcher as Watcher  # callers of this module import it from here

T = TypeVar("T")

DOING = "watch tasks for clients"

FASTEST = 0.25
"""Seconds between two questions to the engine while something changes."""

SLOWEST = 2.0
"""Seconds between two questions to the engine while nothing changes."""

NEWEST = 20
"""Tasks in an overview."""


class TooManyWatchers(Exception):
    """As many clients watch as may."""


class Summary(NamedTuple):
    """The newest tasks and the numbers of all. Logs and tracebacks are left out."""

    stats: Stats
    newest: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """A summary of all tasks. Two are equal if nothing but the time has changed between them."""

    summary: Summary = field(compare=False)
    _changes: tuple[object, ...]

    @classmethod
    def of(cls, stats: Stats, newest: Iterable[Task]) -> "Overview":
        tasks = tuple(map(_brief, newest))
        return cls(Summary(stats, tasks), (dict(stats.counts), tasks))


class Live:
    """The watchers of an installation on one event loop, and the poller that asks for them."""

    def __init__(self, client: Client, *, when_over: Callable[[], object]) -> None:
        self._client = client
        self._when_over = when_over
        self._loop = running_loop()
        self._tasks: dict[str, set[Watcher[Task]]] = {}
        self._overviews: set[Watcher[Overview]] = set()
        self._polling: asyncio.Task[None] | None = None
        self._pause = FASTEST

    def __iter__(self) -> Iterator[Watcher[Any]]:
        yield from self._overviews
        for watchers in self._tasks.values():
            yield from watchers

    @contextmanager
    def task(self, task: Task) -> Iterator[Watcher[Task]]:
        """Watch a task that was just read. Its changes come without logs and tracebacks. It ends if it is deleted."""
        watcher = Watcher(_brief(task))
        with self._watched(self._tasks.setdefault(task.id, set()), watcher):
            yield watcher

    @contextmanager
    def overview(self) -> Iterator[Watcher[Overview]]:
        """Watch the newest tasks and the numbers of tasks."""
        watcher = Watcher[Overview]()
        with self._watched(self._overviews, watcher):
            yield watcher

    def end(self) -> None:
        """End all watching, because the application ends. The engine is not asked again, because it will be closed."""
        self._stop()
        for watcher in list(self):
            watcher.end()

    def end_from_anywhere(self) -> None:
        """Do so from any thread; on its own event loop, at once."""
        if asyncio.get_running_loop() is self._loop:
            self.end()
            return
        with suppress(RuntimeError):  # its loop is closed, and with it all of its streams
            self._loop.call_soon_threadsafe(self.end)

    def hurry(self) -> None:
        """Ask the engine soon: something has changed."""
        self._pause = FASTEST

    @contextmanager
    def _watched(self, watchers: set[Watcher[T]], watcher: Watcher[T]) -> Iterator[None]:
        watchers.add(watcher)
        self.hurry()
        if self._polling is None:  # in no request's context: it outlives them
            self._polling = self._loop.create_task(self._poll(), context=Context())
        try:
            yield
        finally:
            watchers.discard(watcher)
            self._forget_unwatched()

    def _forget_unwatched(self) -> None:
        self._tasks = {id: watchers for id, watchers in self._tasks.items() if watchers}
        if not any(True for _ in self):
            self._stop()

    def _stop(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            self._polling = None
            self._when_over()

    async def _poll(self) -> None:
        """Ask the engine until cancelled: often while something changes, rarely while nothing does."""
        asked_at = seen = -1.0
        now = self._loop.time
        while True:
            changes = self._changes_here()
            if changes != seen or now() - asked_at >= self._pause:
                seen, asked_at = changes, now()
                changed = await self._ask()
                self._pause = FASTEST if changed else min(self._pause * 2, SLOWEST)
            await asyncio.sleep(FASTEST)

    def _changes_here(self) -> int:
        """Return a number that is different after the worker of this process has changed a task."""
        worker = self._client.worker
        return 0 if worker is None else worker.changes

    async def _ask(self) -> bool:
        """Ask the engine, and tell all watchers. Return whether anything has changed for any of them."""
        try:
            engine = await self._client.open()
            changed = await self._ask_for_tasks(engine) if self._tasks else False
            return (await self._ask_for_overview(engine) if self._overviews else False) or changed
        except EngineError as error:
            telemetry.engine_trouble(DOING, error, timedelta(seconds=self._pause))
        except Exception as error:  # nobody may wait for ever because of a bug
            telemetry.loop_broken(DOING, error)
        for watcher in list(self):
            watcher.store_away()
        return False

    async def _ask_for_tasks(self, engine: Engine) -> bool:
        # Who begins to watch meanwhile has read a newer state than this answer.
        asked = {id: list(watchers) for id, watchers in self._tasks.items()}
        found = {task.id: _brief(task) for task in await engine.get(list(asked))}
        changed = False
        for id, watchers in asked.items():
            for watcher in watchers:
                if id in found:
                    changed |= watcher.offer(found[id])
                else:
                    watcher.end()
        return changed

    async def _ask_for_overview(self, engine: Engine) -> bool:
        overview = Overview.of(await engine.stats(), await engine.find(Query(limit=NEWEST)))
        return any([watcher.offer(overview) for watcher in list(self._overviews)])


def _brief(task: Task) -> Task:
    """Return a task without what makes it large, and without what every heartbeat changes."""
    last = tuple(replace(failure, traceback="") for failure in task.failures[-1:])
    return replace(task, failures=last, logs=(), lease_until=None)


class Lives(ProcessState):
    """Where anybody watches in this process."""

    def __init__(self) -> None:
        self.watched: dict[tuple[Client, asyncio.AbstractEventLoop], Live] = {}
        self.ended: WeakSet[Client] = WeakSet()  # installations whose process was told to end


_lives = Lives()


@contextmanager
def watching_task(client: Client, task: Task) -> Iterator[Watcher[Task]]:
    """Watch a task that was just read, as long as the block lasts. Raises TooManyWatchers."""
    if client in _lives.ended:
        yield _over()
    else:
        with _admitted(client).task(task) as watcher:
            yield watcher


@contextmanager
def watching_overview(client: Client) -> Iterator[Watcher[Overview]]:
    """Watch the newest tasks and the numbers of tasks, as long as the block lasts. Raises TooManyWatchers."""
    if client in _lives.ended:
        yield _over()
    else:
        with _admitted(client).overview() as watcher:
            yield watcher


def begin(client: Client) -> None:
    """Let clients watch: the application has started."""
    _lives.ended.discard(client)


def end(client: Client) -> None:
    """End all watching, because the application ends. A client that comes later is told so at once."""
    _lives.ended.add(client)
    for live in _of(client):
        live.end_from_anywhere()


def hurry(client: Client) -> None:
    """Have the changes of an installation seen soon."""
    for live in _of(client):
        live.hurry()


def _of(client: Client) -> list[Live]:
    return [live for (of, _), live in list(_lives.watched.items()) if of is client]


def _admitted(client: Client) -> Live:
    """Return where a client may watch. Raises TooManyWatchers."""
    if sum(1 for live in _of(client) for _ in live) >= client.options.max_streams:
        raise TooManyWatchers
    place, watched = (client, running_loop()), _lives.watched
    live = watched.get(place)
    if live is None:
        live = watched[place] = Live(client, when_over=lambda: watched.pop(place, None))
    return live


def _over() -> Watcher[Any]:
    watcher = Watcher[Any]()
    watcher.end()
    return watcher
