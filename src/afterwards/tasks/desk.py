"""What people ask about the tasks of an installation, and do to many of them at once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Unpack

from afterwards.client import steering
from afterwards.client.client import Client
from afterwards.client.handle import CANCELLED_BY_APPLICATION, checked_reason
from afterwards.core.record import TaskRecord
from afterwards.core.routing import ALIVE
from afterwards.core.task import State
from afterwards.tasks.filters import Which, WhichOrAll, checked_limit, filter_of, filter_to_change


class TaskPage(list[TaskRecord]):
    """Records of tasks, newest first: a part of a longer list."""

    next: str | None
    """What continues the list: ``await tasks.list(before=page.next, ...)``. None at the end."""

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
    """Lists, counts and changes the tasks of an installation."""

    client: Client

    async def list(self, *, limit: int = steering.PAGE, before: str | None = None, **which: Unpack[Which]) -> TaskPage:
        """List tasks, newest first: ``await tasks.list(state="failed", since=timedelta(hours=1))``.

        A page has at most ``limit`` tasks (1 to 1000); ``before=page.next`` continues it. Records in a list have no
        logs, and their failures no tracebacks: ``await (await tasks.get(id)).status()`` returns all.
        Raises InvalidOption, and UnknownTask if the task of ``before`` was deleted: then begin again without it.
        """
        wanted = filter_of("tasks.list", which, self.client.now())
        checked_limit("tasks.list", limit)
        page = await steering.continued(await self.client.open(), wanted, limit=limit, before=before)
        return TaskPage(map(TaskRecord.of, page.tasks), next=page.next)

    async def stats(self) -> TaskStats:
        """Return how many tasks there are by state and queue, the longest wait, and the number of live workers."""
        engine = await self.client.open()
        stats, workers = await engine.stats(), await engine.workers(ALIVE)
        queues: dict[str, dict[State, int]] = {}
        states = dict.fromkeys(State, 0)
        for (queue, state), count in stats.counts.items():
            queues.setdefault(queue, {})[state] = count
            states[state] += count
        living = sum(not worker.has_left for worker in workers)
        return TaskStats(states=states, queues=queues, oldest=stats.oldest, workers=living)

    async def requeue(self, **which: Unpack[WhichOrAll]) -> int:
        """Run finished tasks again: ``await tasks.requeue(state="failed", since=timedelta(hours=1))``.

        Tasks cancelled because of them come back, too. Failures of plain functions are left out, and tasks whose
        unique key another task has meanwhile. Returns how many were queued. One call changes at most 100,000 tasks.
        Raises InvalidOption if nothing says which tasks are meant: ``all=True`` means all.
        """
        wanted = filter_to_change("tasks.requeue", which, self.client.now())
        return await steering.requeue(await self.client.open(), wanted)

    async def cancel(self, *, reason: str = CANCELLED_BY_APPLICATION, **which: Unpack[WhichOrAll]) -> int:
        """Cancel unfinished tasks and those behind them; ask running ones to stop. Returns how many, as ``requeue``."""
        wanted = filter_to_change("tasks.cancel", which, self.client.now())
        return await steering.cancel(await self.client.open(), wanted, checked_reason(reason))

    async def start_now(self, **which: Unpack[WhichOrAll]) -> int:
        """Queue tasks whose time has not come: delayed, retried and snoozed ones. Returns how many, as ``requeue``."""
        wanted = filter_to_change("tasks.start_now", which, self.client.now())
        return await steering.start_now(await self.client.open(), wanted)

    async def delete(self, **which: Unpack[WhichOrAll]) -> int:
        """Delete the records of finished tasks, and their files. Returns how many, as ``requeue``."""
        wanted = filter_to_change("tasks.delete", which, self.client.now())
        return await steering.delete(await self.client.open(), wanted)
