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
from afterwards.core.errors import EngineError, InvalidOption, NotAFunction, NotStored, QueueFull
from afterwards.core.options import AS_CONFIGURED, DatabaseConnection, DatabaseSession, Stored
from afterwards.tasks.function import Call, TaskFunction
from afterwards.tasks.wrapped import is_call, is_task_function, leads_to_call, refuse_wrapped
from afterwards.web.idempotency import task_key
from afterwards.web.phase import Phase
from afterwards.web.plain_tasks import PlainTask
from afterwards.web.stored_call import StoredCall, store


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
    flushed_length = -1
    """Length of ``tasks`` at the flush at the handler's end; -1 before it."""

    def waiting(self) -> list[StoredCall]:
        """Return the calls that are not stored yet, in the order added."""
        waiting: list[StoredCall] = []
        for place, added in enumerate(self.tasks):
            task = added
            if not isinstance(task, StoredCall):
                task = self.tasks[place] = self._converted(task)  # user code may have appended it directly
            if isinstance(task, StoredCall) and task.waits_for_flush:
                waiting.append(task)
        return waiting if len(waiting) < 2 else list(dict.fromkeys(waiting))  # a list may hold one twice

    def _make(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BackgroundTask:
        """Return a call of a task function or of a plain function. An existing call is returned as it is."""
        if is_task_function(func):
            return self._stored_call(func, args, kwargs)
        if isinstance(func, partial) and leads_to_call(func.func):
            return self._make(func.func, (*func.args, *args), func.keywords | kwargs)
        if is_call(func):
            return self._make(func.__self__, args, kwargs)
        if isinstance(func, BackgroundTask) and not (args or kwargs):
            return self._converted(func)
        refuse_wrapped(func)
        _check_function(func)
        return PlainTask(func, *args, **kwargs)

    def _converted(self, task: BackgroundTask) -> BackgroundTask:
        """Convert a call made with Starlette's class to one of ours."""
        if isinstance(task, (StoredCall, PlainTask)):
            return task
        func = getattr(task, "func", None)
        if type(task) is BackgroundTask or is_task_function(func):
            return self._make(func, task.args, task.kwargs)
        refuse_wrapped(func)
        _check_function(task)
        return PlainTask(task)  # a subclass may do anything: it is run unchanged

    def _stored_call(
        self, func: TaskFunction[Any, Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> StoredCall:
        if self._request_tasks is None:  # outside a request, so nothing is held until its end
            self._request_tasks = RequestTasks(the_client(f"task {func.name!r}"), at_once=True)
        client = self._request_tasks.client
        ordered = client.options.ordered if self._ordered is None else self._ordered
        chained = ordered and not func.settings.apart
        session = self._session if func.session is AS_CONFIGURED else func.session
        if func.settings.after is not None:
            self._check_after(func, func.settings.after, joins=session is not None)
        key = None if self._key is None else self._next_key(self._key)
        late = self._phase is not Phase.HANDLING
        call = StoredCall(func, args, kwargs, self._request_tasks, chained=chained, late=late, key=key)
        connection = self._connection if func.connection is AS_CONFIGURED else func.connection
        if session is not None:
            self._check_uploads(call, "session")
            self._join(call, session)
        elif connection is not None:
            self._check_uploads(call, "connection")
            check_sync_connection(connection, f"await {func.name}.options(connection=...).enqueue(...)")
            self._store_in(call, connection)
        return call

    def _check_uploads(self, call: StoredCall, with_what: str) -> None:
        if call.uploads and call.uploads.any:
            raise InvalidOption(
                f"task {call.name!r}: an uploaded file cannot be stored by a {with_what}'s commit: write "
                f"`await {call.name}.options({with_what}=...).enqueue(...)`, or leave the {with_what} out for this task"
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
            raise NotStored(after.id, " before its session commits: give what comes after it the same session")

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
        assert self._request_tasks is not None
        self._request_tasks.start_write(self._flush_late)

    async def _flush_late(self) -> None:
        """Store calls added too late to refuse the request. Failures are logged."""
        try:
            await flush([self], self._request_tasks)
        except (EngineError, QueueFull) as error:
            telemetry.not_stored(error, [call.func.name for call in self.waiting()], answered=True)
        except UNSTORABLE as error:
            failed = [call for call in self.waiting() if call.uploads and call.uploads.failed]
            telemetry.not_stored(error, [call.func.name for call in failed], answered=True)
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

    If the engine fails, all added calls are dropped, and the request is refused. Raises EngineError, QueueFull.
    """
    try:
        await flush(request.buffers, request)
    except (EngineError, QueueFull, *UNSTORABLE) as error:
        if isinstance(error, EngineError):
            waiting = [call.func.name for buffer in request.buffers for call in buffer.waiting()]
            telemetry.not_stored(error, waiting, answered=False)
        drop(request)
        request.discard()
        raise


def drop(request: RequestTasks) -> None:
    """Drop the calls added in a request: its client is told that nothing was stored."""
    request.refused = True
    for buffer in request.buffers:
        buffer.tasks.clear()


def _waiting_in(buffers: Sequence[Buffer]) -> list[StoredCall]:
    waiting = {call: None for buffer in buffers for call in buffer.waiting()}  # two lists may hold the same call
    return sorted(waiting, key=lambda call: call.number)


def _check_function(func: object) -> None:
    """Raise NotAFunction for an object that is not callable: FastAPI would fail only after the response."""
    if isinstance(func, Call):
        name = func.function.name
        raise NotAFunction(f"add_task: {name}.call(...) is for `chain`: write `add_task({name}, ...)`")
    if not callable(func):
        raise NotAFunction(f"add_task: {called_already(func, 'add_task({}(1))', 'add_task({}, 1)')}")
