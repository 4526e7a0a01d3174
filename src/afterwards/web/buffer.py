"""The calls that were added to one BackgroundTasks object, in order, until they are stored or run."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import fastapi
from starlette.background import BackgroundTask

from afterwards import telemetry
from afterwards.client.connections import check_sync_connection
from afterwards.client.connections import store as insert
from afterwards.client.installations import the_client
from afterwards.client.request import RequestTasks, in_line
from afterwards.client.session_call import Joining
from afterwards.client.sqlalchemy import join
from afterwards.client.uploads import UNSTORABLE
from afterwards.core.already_called import called_already
from afterwards.core.errors import InvalidOption, NotAFunction, NotStored, QueueFull
from afterwards.core.keywords import AS_CONFIGURED, DatabaseConnection, DatabaseSession, Stored
from afterwards.dispatch.celery.calls import celery_call, celery_task
from afterwards.tasks.function import Call, TaskFunction
from afterwards.tasks.wrapped import is_bare, is_call, is_task_function, leads_to_call, refuse_enqueuing, refuse_wrapped
from afterwards.web.durable_calls import DurableCall, SentCall, StoredCall, store
from afterwards.web.idempotency import task_key
from afterwards.web.phase import Phase
from afterwards.web.plain_tasks import PlainTask
from afterwards.web.refusals import UNAVAILABLE, UNPROCESSABLE


class Buffer(fastapi.BackgroundTasks):
    """A list of calls, ``tasks``, and the code that stores them. Does not depend on how FastAPI uses the list."""

    # Most requests do not change these: as attributes of the class they cost nothing.
    _request_tasks: RequestTasks | None = None  # the request that stores them; None for no request
    _phase = Phase.HANDLING
    _ordered: bool | None = None  # None: the installation's default
    _session: DatabaseSession | None = None
    _connection: DatabaseConnection | None = None
    _key: str | None = None  # makes the request's tasks idempotent
    _keyed = 0  # number of tasks that got a key
    _flush_planned = False  # a late flush that has not begun will store what is added now
    flushed_length = -1
    """Length of ``tasks`` at the flush at the handler's end; -1 before it."""

    def waiting(self) -> list[DurableCall]:
        """Return the calls that are not stored or sent yet, in the order added."""
        waiting: list[DurableCall] = []
        for place, added in enumerate(self.tasks):
            task = added
            if not isinstance(task, DurableCall):
                task = self.tasks[place] = self._converted(task)  # user code may have appended it directly
            if isinstance(task, DurableCall) and task.waits_for_flush:
                waiting.append(task)
        return waiting if len(waiting) < 2 else list(dict.fromkeys(waiting))  # a list may hold one twice

    def _make(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BackgroundTask:
        """Return a call of a task function, a Celery task or a plain function. An existing call is returned."""
        if is_task_function(func):
            return self._stored_call(func, args, kwargs)
        if (celerys := celery_task(func)) is not None:
            return self._sent_call(celerys, args, kwargs)
        if isinstance(func, partial) and (leads_to_call(func.func) or celery_task(func.func) is not None):
            return self._make(func.func, (*func.args, *args), func.keywords | kwargs)
        if is_call(func):
            return self._make(func.__self__, args, kwargs)
        if isinstance(func, BackgroundTask) and not (args or kwargs):
            return self._converted(func)
        if not is_bare(func):
            refuse_enqueuing(func)
            refuse_wrapped(func)
            _check_function(func)
        return PlainTask(func, *args, **kwargs)

    def _converted(self, task: BackgroundTask) -> BackgroundTask:
        """Convert a call made with Starlette's class to one of ours."""
        if isinstance(task, (DurableCall, PlainTask)):
            return task
        func = getattr(task, "func", None)
        if type(task) is BackgroundTask or is_task_function(func):
            return self._make(func, task.args, task.kwargs)
        refuse_enqueuing(func)
        refuse_wrapped(func)
        _check_function(task)
        return PlainTask(task)  # a subclass may do anything: it is run unchanged

    def _stored_call(
        self, func: TaskFunction[Any, Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> StoredCall:
        request = self._stored_by(f"task {func.name!r}")
        client = request.client
        ordered = client.options.ordered if self._ordered is None else self._ordered
        chained = ordered and not func.settings.apart
        session = self._session if func.session is AS_CONFIGURED else func.session
        if func.settings.after is not None:
            self._check_after(func, func.settings.after, joins=session is not None)
        key = None if self._key is None else self._next_key(self._key)
        late = self._phase is not Phase.HANDLING
        call = StoredCall(func, args, kwargs, request, chained=chained, late=late, key=key)
        connection = self._connection if func.connection is AS_CONFIGURED else func.connection
        if session is not None:
            self._check_uploads(call, "session")
            self._join(call, session)
        elif connection is not None:
            self._check_uploads(call, "connection")
            check_sync_connection(connection, f"await {func.name}.options(connection=...).enqueue(...)")
            self._store_in(call, connection)
        return call

    def _sent_call(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SentCall:
        call = celery_call(task, args, kwargs)
        if (transaction := self._session or self._connection) is not None:
            what = "session" if transaction is self._session else "connection"
            raise InvalidOption(
                f"Celery task {call.name!r}: no transaction of a {what} can contain a Celery message, which would be "
                f"sent even after a rollback: add it after configure({what}=None), or make it a @task of Afterwards"
            )
        return SentCall(task, args, kwargs, call, self._stored_by(f"Celery task {call.name!r}"))

    def _stored_by(self, what: str) -> RequestTasks:
        if self._request_tasks is None:  # outside a request, so nothing is held until its end
            self._request_tasks = RequestTasks(the_client(what), at_once=True)
        return self._request_tasks

    def _check_uploads(self, call: StoredCall, with_what: str) -> None:
        if call.uploads and call.uploads.any:
            raise InvalidOption(
                f"task {call.name!r}: the commit of a {with_what} cannot store an uploaded file: write "
                f"`await {call.name}.options({with_what}=...).enqueue(...)`, or add this task with {with_what}=None"
            )

    def _store_in(self, call: StoredCall, connection: DatabaseConnection) -> None:
        """Store a call in the open transaction of a connection."""
        assert self._request_tasks is not None
        request = self._request_tasks
        if not (request.at_once or request.answered):
            request.client.must_work()
        tasks = [*in_line([call], request)]
        stored = insert(connection, tasks, request.client)
        if stored is not None:  # otherwise a test keeps its tasks in memory: it is stored as any other
            request.stored(tasks, stored)
            call.mark_stored(stored[0].id)

    def _check_after(self, func: TaskFunction[Any, Any, Any], after: Stored, *, joins: bool) -> None:
        """Raise NotStored for a task that comes after one which will not be stored before it."""
        if after.stored:
            return
        assert self._request_tasks is not None
        added = (task for buffer in (self, *self._request_tasks.buffers) for task in buffer.tasks)
        before = next((task for task in added if isinstance(task, StoredCall) and task.handle is after), None)
        if before is None:
            func.calls.stored_after()
        elif before.joining is not None and not joins:
            raise NotStored(
                after.id, " before its session commits: add the task that comes after it with the same session"
            )

    def _next_key(self, key: str) -> str:
        self._keyed += 1
        return task_key(key, self._keyed)

    def _join(self, call: StoredCall, session: DatabaseSession) -> None:
        """Have a call stored when the session commits."""
        assert self._request_tasks is not None
        call.joining = Joining(call, self._released)
        join(session, call.joining, self._request_tasks)
        if not self._request_tasks.at_once:
            self._request_tasks.watch(call.joining)

    def _released(self) -> None:
        """Store a call whose session has committed on another database than that of the tasks."""
        self.flushed_length = -1
        if self._phase is not Phase.HANDLING:
            self._store_soon()

    def _store_soon(self) -> None:
        """Store what was added late. On the request's loop, calls added in one turn share a flush: each reads all."""
        assert self._request_tasks is not None
        if self._request_tasks.is_on_its_loop():
            if self._flush_planned:
                return
            self._flush_planned = True
        self._request_tasks.start_write(self._flush_late)

    async def _flush_late(self) -> None:
        """Store calls added too late to refuse the request. Failures are logged."""
        self._flush_planned = False  # what is added from now on needs another one
        try:
            await flush([self], self._request_tasks)
        except (*UNAVAILABLE, QueueFull) as error:
            telemetry.not_stored(error, [call.name for call in self.waiting()], answered=True)
        except UNSTORABLE as error:
            failed = [call for call in self.waiting() if call.uploads and call.uploads.failed]
            telemetry.not_stored(error, [call.name for call in failed], answered=True)
            self.tasks[:] = [task for task in self.tasks if task not in failed]
            await self._flush_late()


async def flush(buffers: Sequence[Buffer], request: RequestTasks | None) -> None:
    """Store the calls of all these buffers, as one chain in the order added, all or none."""
    if request is not None:
        await store(buffers[0].waiting if len(buffers) == 1 else partial(_waiting_in, buffers), request)


def anything_to_store(request: RequestTasks) -> bool:
    """Return whether calls may have been added that were not stored when the handler ended."""
    for buffer in request.buffers:  # noqa: SIM110  # `any` is slower, in every request
        if len(buffer.tasks) != buffer.flushed_length:
            return True
    return False


async def flush_before_response(request: RequestTasks) -> None:
    """Store the calls of objects that were not injected: Starlette runs those objects only after the response.

    If they cannot be stored, all added calls are dropped, and the request is refused. Raises QueueFull, and the errors
    of ``UNAVAILABLE``, ``UNPROCESSABLE`` and ``UNSTORABLE``.
    """
    try:
        await flush(request.buffers, request)
    except (*UNAVAILABLE, QueueFull, *UNSTORABLE, *UNPROCESSABLE) as error:
        if isinstance(error, UNAVAILABLE):
            waiting = [call.name for buffer in request.buffers for call in buffer.waiting()]
            telemetry.not_stored(error, waiting, answered=False)
        drop(request)
        request.discard()
        raise


def drop(request: RequestTasks) -> None:
    """Drop the calls added in a request: its client is told that nothing was stored."""
    request.refused = True
    for buffer in request.buffers:
        buffer.tasks.clear()


def _waiting_in(buffers: Sequence[Buffer]) -> list[DurableCall]:
    waiting = {call: None for buffer in buffers for call in buffer.waiting()}  # two lists may hold the same call
    return sorted(waiting, key=lambda call: call.number)


def _check_function(func: object) -> None:
    """Raise NotAFunction for an object that is not callable: FastAPI would fail only after the response."""
    if isinstance(func, Call):
        name = func.function.name
        raise NotAFunction(f"add_task: {name}.call(...) is for `chain`: write `add_task({name}, ...)`")
    if not callable(func):
        raise NotAFunction(f"add_task: {called_already(func, 'add_task({}(1))', 'add_task({}, 1)')}")
