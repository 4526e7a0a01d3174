"""Questions of people about the tasks of an installation, and acts on them: one, many at once, and whole queues."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Never, Unpack

from afterwards.client import steering
from afterwards.client.client import Client
from afterwards.client.handle import CANCELLED_BY_APPLICATION, TaskHandle, checked_reason
from afterwards.core.claim import Paused, PausedTasks
from afterwards.core.errors import InvalidOption, UnknownFunction, UnknownTask
from afterwards.core.keys import as_key
from afterwards.core.names import check_name
from afterwards.core.record import TaskRecord
from afterwards.core.task import State, Task
from afterwards.core.text import shown
from afterwards.tasks.filters import Which, WhichOrAll, check_unnamed, checked_limit, filter_of, filter_to_change
from afterwards.tasks.function import TaskFunction
from afterwards.tasks.registry import registry
from afterwards.worker.live_processes import live_workers


class TaskPage(list[TaskRecord]):
    """Records of tasks, newest first: a part of a longer list."""

    next: str | None
    """The value that continues the list: ``await tasks.list(before=page.next, ...)``. None at the end."""

    def __init__(self, records: Iterable[TaskRecord] = (), *, next: str | None = None) -> None:
        super().__init__(records)
        self.next = next


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStats:
    """How many tasks there are, how long the oldest waits, and how many workers live."""

    states: Mapping[State, int]  # in all queues; every state
    queues: Mapping[str, Mapping[State, int]]  # by queue: the states in which it has tasks
    oldest: timedelta | None  # how long the longest waiting task could have started; None: no task could
    workers: int  # seen within the last half minute


class TaskDesk:
    """Finds, lists, counts, changes and pauses the tasks of an installation."""

    client: Client

    async def list(
        self, *unnamed: Never, limit: int = steering.PAGE, before: str | None = None, **which: Unpack[Which]
    ) -> TaskPage:
        """List tasks, newest first: ``await tasks.list(state="failed", since=timedelta(hours=1))``.

        A page has at most ``limit`` tasks (1 to 1000); ``before=page.next`` continues it. Records in a list have no
        logs, and their failures no tracebacks: ``await (await tasks.get(id)).status()`` returns all.
        Raises InvalidOption, and UnknownTask if the task of ``before`` was deleted: then begin again without it.
        """
        check_unnamed("tasks.list", unnamed)
        wanted = filter_of("tasks.list", which, self.client.now())
        checked_limit("tasks.list", limit)
        if not isinstance(before, str | None):
            raise InvalidOption(f"tasks.list(before={shown(before)}): give the `next` of a page, or the id of a task")
        page = await steering.continued(await self.client.open(), wanted, limit=limit, before=before)
        return TaskPage(map(TaskRecord.of, page.tasks), next=page.next)

    async def stats(self) -> TaskStats:
        """Return how many tasks there are by state and queue, the longest wait, and the number of live workers."""
        engine = await self.client.open()
        stats = await engine.stats()
        states = dict.fromkeys(State, 0) | stats.by_state
        workers = len(await live_workers(engine))
        return TaskStats(states=states, queues=stats.by_queue, oldest=stats.oldest, workers=workers)

    async def requeue(self, *unnamed: Never, **which: Unpack[WhichOrAll]) -> int:
        """Run finished tasks again: ``await tasks.requeue(state="failed", since=timedelta(hours=1))``.

        Tasks cancelled because of them come back, too. Failures of plain functions are left out, and tasks whose
        unique key another task has meanwhile. Returns how many were queued. One call changes at most 100,000 tasks.
        Raises InvalidOption if nothing says which tasks are meant: ``all=True`` means all.
        """
        check_unnamed("tasks.requeue", unnamed)
        wanted = filter_to_change("tasks.requeue", which, self.client.now())
        return await steering.requeue(await self.client.open(), wanted)

    async def cancel(self, *unnamed: Never, reason: str = CANCELLED_BY_APPLICATION, **which: Unpack[WhichOrAll]) -> int:
        """Cancel unfinished tasks and those behind them; ask running ones to stop. Returns how many, as ``requeue``."""
        check_unnamed("tasks.cancel", unnamed)
        wanted = filter_to_change("tasks.cancel", which, self.client.now())
        return await steering.cancel(await self.client.open(), wanted, checked_reason(reason))

    async def start_now(self, *unnamed: Never, **which: Unpack[WhichOrAll]) -> int:
        """Queue tasks whose time has not come: delayed, retried and snoozed ones. Returns how many, as ``requeue``."""
        check_unnamed("tasks.start_now", unnamed)
        wanted = filter_to_change("tasks.start_now", which, self.client.now())
        return await steering.start_now(await self.client.open(), wanted)

    async def delete(self, *unnamed: Never, **which: Unpack[WhichOrAll]) -> int:
        """Delete the records of finished tasks, and their files. Returns how many, as ``requeue``."""
        check_unnamed("tasks.delete", unnamed)
        wanted = filter_to_change("tasks.delete", which, self.client.now())
        return await steering.delete(await self.client.open(), wanted)

    async def get(
        self, id: str | None = None, *, key: str | None = None, function: TaskFunction[Any, Any, Any] | None = None
    ) -> TaskHandle[Any]:
        """Return the handle of a stored task, by its id or by its ``idempotency_key``.

        Keys are separate for each function. If several functions have a task with this key, ``function`` selects one.
        Raises UnknownTask if no such task is stored, and InvalidOption if the key is ambiguous.
        """
        if (id is None) == (key is None) or not isinstance(id if key is None else key, str):
            raise InvalidOption(f"tasks.get(id={shown(id)}, key={shown(key)}): give one of them, as text")
        if not isinstance(function, TaskFunction | None):
            raise InvalidOption(f"tasks.get(function={shown(function)}): give a task function that @task made")
        task = await (self.client.get(id) if id is not None else self._with_key(key or "", function))
        try:
            return registry.get(task.name).handle(task.id, self.client)
        except UnknownFunction:
            return TaskHandle(
                task.id, self.client, lambda result: None if result is None else json.loads(result), name=task.name
            )

    async def _with_key(self, key: str, function: TaskFunction[Any, Any, Any] | None) -> Task:
        functions = registry if function is None else [function]
        found = await self.client.with_keys({f"{one.identity}/{as_key(key)}" for one in functions})
        if len(found) > 1:
            names = ", ".join(sorted(task.name for task in found))
            raise InvalidOption(f"tasks.get(key={key!r}): {names} have a task with this key: say function=...")
        if not found:
            raise UnknownTask(key, "key")
        return found[0]

    async def pause(self, *what: TaskFunction[Any, Any, Any], queue: str | None = None) -> None:
        """Pause task functions or a queue until ``resume``: no worker starts their tasks. Running tasks continue.

        Tasks are still stored. A pause applies to all processes, and persists across restarts.
        """
        await (await self.client.open()).pause(_paused(what, queue))

    async def resume(self, *what: TaskFunction[Any, Any, Any], queue: str | None = None) -> None:
        """End the pause of task functions or of a queue."""
        await (await self.client.open()).resume(_paused(what, queue))

    async def paused(self) -> PausedTasks:
        """Return the names of paused task functions and the paused queues."""
        paused = await (await self.client.open()).paused()
        return PausedTasks(queues=paused.queues, names=paused.names)


def _paused(functions: Sequence[TaskFunction[Any, Any, Any]], queue: str | None) -> Paused:
    for function in functions:
        if not isinstance(function, TaskFunction):
            raise InvalidOption(f"{function!r} is not a task function: give one that @task made, or queue=...")
    if not functions and queue is None:
        raise InvalidOption("nothing to pause or resume: give task functions, or queue=...")
    queues = frozenset() if queue is None else frozenset({check_name("queue", queue)})
    return Paused(queues=queues, names=frozenset(name for one in functions for name in (one.name, *one.aliases)))
