"""A call of a task function in a request's buffer, and the code that stores such calls."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

from starlette.background import BackgroundTask

from afterwards.client.client import Client
from afterwards.client.request import RequestTasks, in_line
from afterwards.client.session_call import Joining, Standing
from afterwards.client.uploads import files_stored
from afterwards.core.task import NewTask
from afterwards.tasks.function import TaskFunction

T = TypeVar("T")

AT_ONCE = 250
"""Calls of one request that are prepared in one turn of the event loop: a few milliseconds of work."""

_numbers = itertools.count()


class StoredCall(BackgroundTask):
    """One call of a task function, in its request's buffer until it is stored. Only a worker runs the function.

    One call is one task, no matter how many lists contain it and how often it is copied.
    """

    func: TaskFunction[Any, Any, Any]
    args: Any
    kwargs: Any
    stored = False
    joining: Joining | None = None  # set while it waits for the commit of a session

    def __init__(
        self,
        func: TaskFunction[Any, Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        request: RequestTasks,
        *,
        chained: bool,
        late: bool,
        key: str | None,
    ) -> None:
        client = request.client
        self.request = request
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.is_async = func.is_async
        self.id = client.new_id()
        self.written = func.calls.write(args, kwargs, self.id, client)
        self.uploads = self.written.uploads
        self.handle = func.handle(self.id, client, stored=False)
        self.chained = chained  # comes after the request's task before it
        self.late = late  # added when the request could no longer be refused
        self.key = key  # derived from the request's idempotency key
        self.number = next(_numbers)  # position in the request, across all its objects

    @property
    def name(self) -> str:
        return self.func.name

    @property
    def waits_for_flush(self) -> bool:
        """Return whether it is to be stored when the handler has returned."""
        return not self.stored and (self.joining is None or self.joining.standing is Standing.RELEASED)

    def new_task(self, client: Client, *, origin: str | None, after: str | None, held: bool, answered: bool) -> NewTask:
        explicit = self.func.settings.after
        return self.func.calls.new_task(
            client,
            self.written,
            id=self.id,
            origin=origin,
            after=after if explicit is None else explicit.id,
            chained=self.chained,
            held=held,
            limited=not (self.late or answered),
            key=self.key,
        )

    def mark_stored(self, id: str) -> None:
        self.stored = True
        self.joining = None  # it refers to this call: a cycle for the garbage collector
        self.handle.mark_stored(id)

    def mark_not_stored(self, reason: str) -> None:
        self.handle.mark_not_stored(reason)

    async def __call__(self) -> None:
        """Store the call, unless it is stored or its request was refused. The worker runs it."""
        if not self.request.refused:
            await store(self._if_waiting, self.request)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def _if_waiting(self) -> "list[StoredCall]":
        return [self] if self.waits_for_flush else []


async def store(waiting: Callable[[], Sequence[StoredCall]], request: RequestTasks) -> None:
    """Store the calls that still wait once no other flush of the request is running, as one chain, all or none.

    A call that was made in another request is stored by that request's flush, so that no call is stored twice.
    """
    calls = waiting()
    others = [call for call in calls if call.request is not request]
    if others or request.flushing:
        for call in others:
            await store(call._if_waiting, call.request)
        while request.flushing:
            await request.flushed()
        calls = [call for call in waiting() if call.request is request]
    if not calls:
        return
    request.flushing = True
    try:
        if not (request.at_once or request.answered):
            request.client.must_work()
        tasks = await _in_turns(in_line(calls, request), len(calls))
        request.used = True
        if uploads := [call.uploads for call in calls if call.uploads]:
            async with files_stored(tasks, uploads, request.client):
                stored = await request.client.enqueue(tasks)
        else:
            stored = await request.client.enqueue(tasks)
        request.stored(tasks, stored)
        for call, task in await _in_turns(zip(calls, stored, strict=True), len(calls)):
            call.mark_stored(task.id)
    finally:
        request.end_flush()


async def _in_turns(items: Iterable[T], number: int) -> list[T]:
    """Build a possibly very long list, and yield to the event loop in between."""
    if number <= AT_ONCE:
        return list(items)
    made: list[T] = []
    for item in items:
        made.append(item)
        if len(made) % AT_ONCE == 0:
            await asyncio.sleep(0)
    return made
