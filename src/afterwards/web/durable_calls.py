"""Durable calls in a request's buffer, stored or sent before its response begins, and the code that does it."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

from starlette.background import BackgroundTask

from afterwards import telemetry
from afterwards.client.client import Client
from afterwards.client.handle import TaskHandle
from afterwards.client.request import RequestTasks, in_line
from afterwards.client.session_call import Joining, Standing
from afterwards.client.uploads import Uploads, delete_unused, files_stored
from afterwards.core.errors import EngineError
from afterwards.core.task import NewTask, Task
from afterwards.dispatch.celery import delivery
from afterwards.dispatch.celery.calls import CeleryCall
from afterwards.dispatch.celery.handle import CeleryHandle
from afterwards.tasks.function import TaskFunction

T = TypeVar("T")

AT_ONCE = 250
"""Calls of one request that are prepared in one turn of the event loop: a few milliseconds of work."""

NOT_SENT = "its request was refused: a Celery task that the request added could not be sent"
"""The reason of a cancellation for the tasks that were stored for such a request."""

_numbers = itertools.count()


class DurableCall(BackgroundTask):
    """One call in its request's buffer, until it is stored or sent. Only a worker runs the function.

    One call is one task, no matter how many lists contain it and how often it is copied.
    """

    args: Any
    kwargs: Any
    name: str
    request: RequestTasks
    uploads: Uploads | None = None
    number: int
    """Its position in the request, across all its objects."""

    @property
    def handle(self) -> TaskHandle[Any] | CeleryHandle[Any]:
        raise NotImplementedError

    @property
    def waits_for_flush(self) -> bool:
        """Return whether it is to be stored or sent when the handler has returned."""
        raise NotImplementedError

    async def __call__(self) -> None:
        """Store or send the call, unless that was done or its request was refused. The worker runs it."""
        if not self.request.refused:
            await store(self.if_waiting, self.request)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def if_waiting(self) -> "list[DurableCall]":
        return [self] if self.waits_for_flush else []


class StoredCall(DurableCall):
    """One call of a task function, in its request's buffer until it is stored."""

    func: TaskFunction[Any, Any, Any]
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
        self.name = func.name
        self.args = args
        self.kwargs = kwargs
        self.is_async = func.is_async
        self.id = client.new_id()
        self.written = func.calls.write(args, kwargs, self.id, client)
        self.uploads = self.written.uploads
        self._handle = func.handle(self.id, client, stored=False)
        self.chained = chained  # comes after the request's task before it
        self.late = late  # added when the request could no longer be refused
        self.key = key  # derived from the request's idempotency key
        self.number = next(_numbers)

    @property
    def handle(self) -> TaskHandle[Any]:
        return self._handle

    @property
    def waits_for_flush(self) -> bool:
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
        self._handle.mark_stored(id)

    def mark_not_stored(self, reason: str) -> None:
        self._handle.mark_not_stored(reason)


class SentCall(DurableCall):
    """One call of a Celery task, in its request's buffer until it is sent to Celery's broker."""

    sent = False

    def __init__(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], call: CeleryCall, request: RequestTasks
    ) -> None:
        self.request = request
        self.func = func
        self.name = call.name
        self.args = args
        self.kwargs = kwargs
        self.is_async = False
        self.call = call
        self.number = next(_numbers)
        self._handle: CeleryHandle[Any] = CeleryHandle(call)

    @property
    def handle(self) -> CeleryHandle[Any]:
        return self._handle

    @property
    def waits_for_flush(self) -> bool:
        return not self.sent

    def mark_sent(self, result: Any) -> None:
        self.sent = True
        self._handle.mark_sent(result)


async def store(waiting: Callable[[], Sequence[DurableCall]], request: RequestTasks) -> None:
    """Store or send the calls that still wait once no other flush of the request is running, all or none.

    A call that was made in another request is stored by that request's flush, so that no call is stored twice.
    """
    calls = waiting()
    others = [call for call in calls if call.request is not request]
    if others or request.flushing:
        for call in others:
            await store(call.if_waiting, call.request)
        while request.flushing:
            await request.flushed()
        calls = [call for call in waiting() if call.request is request]
    if not calls:
        return
    request.flushing = True
    try:
        stored = [call for call in calls if isinstance(call, StoredCall)]
        if len(stored) == len(calls):
            tasks, kept = await _stored(stored, request)
        else:
            # Until the broker has accepted the others, no task may start: not even one outside a request, or here.
            tasks, kept = await _stored(stored, request, held=True) if stored else ([], [])
            await _send([call for call in calls if isinstance(call, SentCall)], tasks, kept, request.client)
        request.stored(tasks, kept)
        for call, task in await _in_turns(zip(stored, kept, strict=True), len(stored)):
            call.mark_stored(task.id)
    finally:
        request.end_flush()


async def _stored(
    calls: Sequence[StoredCall], request: RequestTasks, *, held: bool = False
) -> tuple[list[NewTask], list[Task]]:
    """Store calls as one chain, all or none. If ``held``, nothing starts them before they are published."""
    if not (request.at_once or request.answered):
        request.client.must_work()
    tasks = await _in_turns(in_line(calls, request, held=held or request.holds), len(calls))
    request.used = True
    uploads = [call.uploads for call in calls if call.uploads]
    if not uploads:
        return tasks, await request.client.enqueue(tasks, leased=not held)
    async with files_stored(tasks, uploads, request.client):
        stored = await request.client.enqueue(tasks, leased=not held)
    await delete_unused(uploads, stored, request.client)
    return tasks, stored


async def _send(calls: Sequence[SentCall], tasks: Sequence[NewTask], stored: Sequence[Task], client: Client) -> None:
    """Send calls. If that fails, cancel the tasks that were stored with them. Raises BrokerUnavailable."""
    try:
        results = await delivery.send([call.call for call in calls])
    except Exception:  # also of the user's code: Celery's signals, task classes, and tasks that run eagerly
        made = [task.id for new, task in zip(tasks, stored, strict=True) if new.id == task.id]
        if made:
            await _take_back(made, client)
        raise
    for call, result in zip(calls, results, strict=True):
        call.mark_sent(result)


async def _take_back(ids: Sequence[str], client: Client) -> None:
    try:
        await (await client.open()).cancel(ids, NOT_SENT)
    except EngineError as error:  # the answer to the request is about the broker
        telemetry.not_taken_back(ids, error)


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
