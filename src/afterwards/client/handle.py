"""The handle of an added task."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, NoReturn, TypeVar

from afterwards import telemetry
from afterwards.client import steering
from afterwards.client.client import Client
from afterwards.client.steering import Filter
from afterwards.client.waiting import run_awaited
from afterwards.core.errors import (
    WAITS_FOR_THE_HANDLER,
    InvalidOption,
    NotFinished,
    NotStored,
    RefusedValue,
    TaskFailed,
    WaitsForItself,
    WrongState,
)
from afterwards.core.record import TaskRecord
from afterwards.core.redaction import redactor_of
from afterwards.core.shown_as_id import ShownAsId
from afterwards.core.spans import as_span
from afterwards.core.task import State, Task
from afterwards.core.text import is_unicode, shortened, shown
from afterwards.engine import Engine
from afterwards.execution.context import Attempting, current
from afterwards.execution.process_wide import awaiting

R = TypeVar("R", covariant=True)

CANCELLED_BY_APPLICATION = "cancelled by the application"
"""The reason of a cancellation for which none is given."""

LONG = timedelta(seconds=5)
"""Time after which a warning is logged if a task waits for one that has not begun."""


class TaskHandle(ShownAsId, Generic[R]):
    """A task that was added: ask for its record, wait for its result, cancel it or run it again.

    It may be used in any process and event loop. Before the task is stored every method raises NotStored.
    """

    __slots__ = ("__weakref__", "_client", "_load", "_not_stored", "_stored", "id", "name")

    def __init__(
        self, id: str, client: Client, load: Callable[[str | None], R], *, name: str = "", stored: bool = True
    ) -> None:
        self.id = id
        self.name = name  # of the task function; empty if it is not known
        self._client = client
        self._load = load
        self._stored = stored
        self._not_stored = WAITS_FOR_THE_HANDLER

    async def status(self) -> TaskRecord:
        """Return the current record. Raises UnknownTask when its retention is over."""
        return TaskRecord.of(await self._client.get(self._stored_id()))

    async def result(self, *, timeout: float | timedelta | None = None) -> R:
        """Wait for the function's result, and return it; ``timeout`` in seconds.

        Raises TaskFailed when the task failed or was cancelled, NotFinished on timeout. A task that waits here for
        another one takes no slot meanwhile, but for functions with ``run_in="process"``. Raises WaitsForItself if two
        tasks of this process wait for each other.
        """
        id, span = self._stored_id(), None if timeout is None else as_span(timeout, "timeout")
        waiting = current.get()
        if waiting is None:
            await run_awaited(self._client, id, with_timeout=span is not None)
            task = await self._client.finished(id, span)
        else:
            with waiting.lending(), awaiting(waiting.context.id, id) as never_ends:
                if never_ends:
                    await self._refuse_to_wait(id, waiting)
                await run_awaited(self._client, id, with_timeout=span is not None)
                task = await self._finished(id, span, waiting)
        if task.state is not State.SUCCEEDED:
            raise TaskFailed(redactor_of(task).text(_why_no_result(task)))
        return self._load(task.result)

    async def cancel(self, reason: str = CANCELLED_BY_APPLICATION) -> TaskRecord:
        """Cancel the task and its successors. A running ``async def`` is stopped; a ``def`` is only asked to stop."""
        return TaskRecord.of(await self._client.cancel(self._stored_id(), checked_reason(reason)))

    async def requeue(self) -> TaskRecord:
        """Run a finished task again, with the same arguments. Those cancelled because of it come back, too.

        Raises WrongState if it has not finished, cannot run again, or if another task has its unique key meanwhile.
        """
        return TaskRecord.of(await self._changed(steering.requeue, _not_requeued))

    async def start_now(self) -> TaskRecord:
        """Queue a delayed, retried or snoozed task before its time. Raises WrongState if it is not scheduled."""
        return TaskRecord.of(await self._changed(steering.start_now, _not_started))

    async def delete(self) -> None:
        """Delete the record of a finished task, and its files. Raises WrongState if it has not finished."""
        id = self._stored_id()
        if not await steering.delete(await self._client.open(), Filter(ids=(id,))):
            raise WrongState(id, (await self._client.get(id)).state, "only a finished task can be deleted")

    @property
    def client(self) -> Client:
        return self._client

    @property
    def stored(self) -> bool:
        return self._stored

    def mark_stored(self, id: str) -> None:
        """Record that the task is stored under this id: another task's id, if a uniqueness rule returned that task."""
        self.id = id
        self._stored = True

    def mark_not_stored(self, reason: str) -> None:
        """Record why the task is not stored. The reason ends the error's sentence."""
        self._not_stored = reason

    def __repr__(self) -> str:
        return f"TaskHandle({self.id!r})"

    async def _changed(
        self, change: Callable[[Engine, Filter], Awaitable[int]], problem: Callable[[Task], str]
    ) -> Task:
        """Change the task, and return its record. Raises UnknownTask, and WrongState if it could not be changed."""
        id = self._stored_id()
        changed = await change(await self._client.open(), Filter(ids=(id,)))
        task = await self._client.get(id)
        if not changed:
            raise WrongState(id, task.state, problem(task))
        return task

    async def _refuse_to_wait(self, id: str, waiting: Attempting) -> NoReturn:
        awaited, task = await self._client.get(id), waiting.context.task
        raise WaitsForItself(f"{task.name} ({task.id})", f"{awaited.name} ({awaited.id})")

    async def _finished(self, id: str, timeout: timedelta | None, waiting: Attempting) -> Task:
        """Wait as outside a task; warn if the other task has not begun after a while."""
        if timeout is not None and timeout <= LONG:
            return await self._client.finished(id, timeout)
        try:
            return await self._client.finished(id, LONG)
        except NotFinished:
            awaited = await self._client.get(id)
            if awaited.state.pending:
                telemetry.waits_in_vain(waiting.context.task, awaited)
        return await self._client.finished(id, None if timeout is None else timeout - LONG)

    def _stored_id(self) -> str:
        if not self._stored:
            raise NotStored(self.id, self._not_stored)
        return self.id


def checked_reason(reason: str) -> str:
    """Return the reason of a cancellation in its stored form. Raises InvalidOption."""
    if not isinstance(reason, str):
        raise InvalidOption(f"cancel(reason={shown(reason)}): give text")
    if not is_unicode(reason):
        raise RefusedValue("reason", f"={shown(reason)} is not valid Unicode: it contains half of a surrogate pair")
    return shortened(reason)


def _not_requeued(task: Task) -> str:
    if task.plain:
        return "it records the failure of a plain function, whose arguments are not stored, so it cannot run again"
    if task.state.finished:
        return f"it cannot run again while another task has its unique key {task.unique_key}"
    return "only a finished task can be requeued"


def _not_started(task: Task) -> str:
    return "only a scheduled task can be started before its time"


def _why_no_result(task: Task) -> str:
    about = f"task {task.id} ({task.name})"
    if task.state is State.CANCELLED:
        return f"{about} was cancelled: {task.reason}"
    if not task.failures:
        return f"{about} failed"
    last = task.failures[-1]
    return f"{about} failed in attempt {last.attempt}: {last.type + ': ' if last.type else ''}{last.message}"
