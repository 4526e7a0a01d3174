"""``BackgroundTasks``: the tasks of one request, injected by FastAPI, and stored before its response leaves."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Never, TypeVar, overload

import fastapi
from fastapi import HTTPException
from starlette.background import BackgroundTask
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect
from typing_extensions import ParamSpec

from afterwards import telemetry
from afterwards.client.handle import TaskHandle
from afterwards.client.installations import the_client
from afterwards.client.request import Publication, publication
from afterwards.client.session_call import Joining
from afterwards.client.sqlalchemy import check_session, join
from afterwards.client.uploads import UNSTORABLE
from afterwards.core.called import called_already
from afterwards.core.errors import EngineError, InvalidOption, NotAFunction, NotInstalled, NotStored, QueueFull
from afterwards.core.keys import as_key
from afterwards.core.options import AS_CONFIGURED, AsConfigured, DatabaseSession, Stored
from afterwards.core.spelling import check_names
from afterwards.tasks.function import Call, TaskFunction
from afterwards.tasks.wrapped import is_call, is_task_function, leads_to_call, refuse_wrapped
from afterwards.web.plain_tasks import PlainTask
from afterwards.web.stored_call import StoredCall, store

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

REQUEST_STACK = "fastapi_inner_astack"
"""Where FastAPI keeps what closes after the response (0.121 to 0.165). Only read: were it gone, a response with a
``background`` of its own would drop the request's plain tasks again, as it does in FastAPI."""

MIDDLEWARE_STACK = "fastapi_middleware_astack"
"""Where FastAPI keeps what closes after everything else of a request."""

FUNCTION_STACK = "fastapi_function_astack"
"""Where FastAPI keeps what closes when the handler has returned and before the response begins (0.121 to 0.165)."""

UNAVAILABLE = "The task store is unavailable"

RETRY_AFTER = {"Retry-After": "1"}
"""Seconds after which a client should try again when its tasks could not be stored."""

RETRY_LATER = {"Retry-After": "5"}
"""The same where a queue was full."""


class _BackgroundTasks(fastapi.BackgroundTasks):
    """The tasks of a request.

    Plain functions run in this process after the response, as FastAPI's. Calls of ``@task`` functions are stored when
    the handler has returned and before the response begins, all or none, and start when the request has ended. If the
    handler raises, nothing is stored and nothing runs. ``tasks`` lists all of them in the order added.
    """

    # What most requests leave as it is costs nothing as an attribute of the class.
    _native: fastapi.BackgroundTasks | None = None  # FastAPI's own, which runs the plain tasks
    # The connection itself would make a circle with its scope, for the garbage collector to find in each request.
    _request_stack: AsyncExitStack | None = None
    _middleware_stack: AsyncExitStack | None = None
    _function_stack: AsyncExitStack | None = None
    _websocket = False
    _ordered: bool | None = None  # None: as the installation says
    _session: DatabaseSession | None = None
    _key: str | None = None  # what makes the request's tasks idempotent
    _keyed = 0
    _headers: Sequence[tuple[bytes, bytes]] = ()
    _left_with = -1  # how many tasks there were when the handler had returned
    _late = False  # nobody will flush any more: store at once
    _handed_over = False  # FastAPI has the plain tasks: what comes now goes behind them

    def __init__(self, tasks: Sequence[BackgroundTask] | None = None) -> None:
        super().__init__()
        self._publication = publication.get()
        if self._publication:
            self._publication.buffers.append(self)
        for task in tasks or ():
            self._append(self._adopted(task))

    @overload  # a task function's call gives a handle where FastAPI's gives None: the first that fits decides
    def add_task(  # type: ignore[overload-overlap]
        self, func: TaskFunction[P, Any, R], *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[R]: ...
    @overload
    def add_task(self, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None: ...
    def add_task(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> TaskHandle[Any] | None:
        """Add a call, to run after the response.

        A ``@task`` function's arguments are checked here, and its handle is returned; it can be asked once the task is
        stored. An ``UploadFile`` among them is stored together with the task: leave it open. Raises TypeError,
        UnstorableArgument and TooLarge for a call that could not be stored, NotInstalled without ``Afterwards(app)``,
        WrappedTaskFunction for a decorator round a task function, which would run it without storing it, NotAFunction
        for ``add_task(f(1))``.
        Added after the response began (streams, the exit of dependencies), it is stored at once.
        """
        task = self._made(func, args, kwargs)
        self._append(task)
        return task.handle if isinstance(task, StoredCall) else None

    def configure(
        self,
        *,
        ordered: bool | None = None,
        session: DatabaseSession | AsConfigured | None = AS_CONFIGURED,
        idempotency_key: str | bool | None = None,
        **unknown: Never,
    ) -> None:
        """Set what holds for the durable tasks added from now on; what is not given stays.

        ``ordered``: whether they wait for each other, in the order added.

        ``session``: an SQLAlchemy ``Session`` or ``AsyncSession``. They are stored by its next commit, wherever that
        is, and are rolled back with it, as objects given to ``session.add``; None ends that. If the session works on
        the file where the tasks are kept, they commit together with its rows; if not, they are stored after its
        commit. They take their place in the request's order when they are stored. If the session is never committed
        they are not stored, which is said in the log when the request has ended. If the handler raises, what is not
        committed by then is not stored.

        ``idempotency_key``: a repeated request with the same key stores nothing anew, until its tasks' retention ends;
        their handles are those of the first. True takes it from the ``Idempotency-Key`` header, if there is one, and
        holds for this method and path. With a key of your own the first task has it as it is, for
        ``tasks.get(key=...)``, the next ones ``key:2``, ``key:3`` and so on. A key that a client chose is anybody's:
        put in front of it whose it is (``f"{user.id}:{key}"``).

        On that file one transaction writes at a time. While the session's has written and not ended, whatever else is
        to be stored (``flush``, tasks without the session, ``await f.enqueue()``) waits, for 5 seconds at most, and
        then raises EngineUnavailable: commit first, or give it the session too.
        """
        check_names(_BackgroundTasks.configure, unknown)
        if ordered is not None:
            if not isinstance(ordered, bool):
                raise InvalidOption(f"configure(ordered={ordered!r}): give True or False")
            self._ordered = ordered
        if session is not AS_CONFIGURED:
            if session is not None:
                check_session(session)
            self._session = session
        if idempotency_key is not None:
            self._key = self._request_key() if idempotency_key is True else _own_key(idempotency_key)

    async def flush(self) -> None:
        """Store now what was added so far, all or none; it still starts when the request has ended.

        Raises EngineUnavailable, which ``Afterwards`` answers with 503.
        """
        await self._flush([self])

    async def __call__(self) -> None:
        """Store the durable tasks and run the plain ones, as a response's ``background``."""
        await self.flush()
        for task in self.tasks:
            if not isinstance(task, StoredCall):
                await task()

    def adopt(self, native: fastapi.BackgroundTasks, connection: HTTPConnection) -> None:
        """Become the tasks of a connection; ``native`` is what FastAPI will run after the response."""
        self._native = native
        self._request_stack = connection.scope.get(REQUEST_STACK)
        self._middleware_stack = connection.scope.get(MIDDLEWARE_STACK)
        self._function_stack = connection.scope.get(FUNCTION_STACK)
        self._headers = connection.scope["headers"]
        self._websocket = connection.scope["type"] == "websocket"
        self._late = self._websocket  # its response has begun: what is added is stored at once

    async def leave(self, kind: type[BaseException] | None, *_: object) -> None:
        """The handler has ended: store the durable tasks, give the plain ones to FastAPI; nothing if it raised.

        ``kind`` is what it raised; a client that leaves is how most conversations end. What is added from now on is
        stored at once. Raises HTTPException: 503 when the engine fails, 429 when a queue is full, 413 for too large a
        file.
        """
        if kind is not None and not issubclass(kind, WebSocketDisconnect):
            self.discard()
            return
        try:
            # Also what was added to objects made by hand, for which Starlette asks only after the response. If this is
            # cancelled it has stored all or nothing, and what it stored becomes due by itself.
            await self._flush(self._publication.buffers if self._publication else [])
        except EngineError as error:
            telemetry.not_stored(error, [call.func.name for call in self._waiting()], answered=False)
            self._refuse()
            raise HTTPException(503, UNAVAILABLE, headers=RETRY_AFTER) from error
        except QueueFull as error:
            self._refuse()
            raise HTTPException(429, str(error), headers=RETRY_LATER) from error
        except UNSTORABLE:
            self._refuse()
            raise
        self._late = self._handed_over = True
        self._left_with = len(self.tasks)
        if plain := [task for task in self.tasks if not isinstance(task, StoredCall)]:
            await self._hand_over(plain)
        elif self._native is not None and self._native.tasks:
            _put_in_order(self._native.tasks, plain)

    def _refuse(self) -> None:
        """Nothing that was added is stored or run; what an exit of a dependency adds now is."""
        if self._publication:
            self._publication.refused = True
            for buffer in self._publication.buffers:
                buffer.tasks.clear()
        self._discard_joining()
        self._late = True

    def discard(self) -> None:
        """The handler raised: nothing is stored, nothing runs. What an exit of a dependency adds now is stored."""
        if not self._late:  # what a websocket adds is stored at once: it may be stored already
            self.tasks.clear()
            if self._publication:
                self._publication.buffers[:] = [self]  # nor anything of those made by hand
        self._discard_joining()
        self._late = True

    def _discard_joining(self) -> None:
        """Nothing is stored by a session that is committed from now on."""
        if self._publication:
            self._publication.discard()

    def _join(self, call: StoredCall, session: DatabaseSession) -> None:
        """Have a call stored when the session commits."""
        assert self._publication is not None
        call.joining = Joining(call, self._released)
        join(session, call.joining, self._publication)
        if not self._publication.at_once:
            self._publication.watch(call.joining)
        if self._function_stack and not self._late:
            # The first to hear of an exception of the handler: the session may be committed by an exit further out.
            self._function_stack.push_async_exit(self._see_it_raise)
            self._function_stack = None

    async def _see_it_raise(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, WebSocketDisconnect):
            self._discard_joining()

    def _released(self) -> None:
        """A session has committed on another database than that of the tasks."""
        self._left_with = -1
        if self._late:
            assert self._publication is not None
            self._publication.soon(self._flush_late)

    async def _hand_over(self, plain: Sequence[BackgroundTask]) -> None:
        """Give tasks to FastAPI, which drops them in websockets, and where a response has a ``background`` already."""
        assert self._native is not None
        _put_in_order(self._native.tasks, plain)
        if len(plain) < len(self.tasks):
            telemetry.mixed(self._publication.origin if self._publication else None)
        if self._websocket:
            await self._native()
        elif self._request_stack:
            self._request_stack.push_async_exit(self._run_dropped)

    def _run_late(self, task: PlainTask) -> None:
        """FastAPI runs it if it comes to it; added too late for that, it runs when all dependencies have closed."""
        assert self._native is not None
        self._native.tasks.append(task)
        if self._middleware_stack:
            self._middleware_stack.push_async_exit(self._run_dropped)

    async def _run_dropped(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._native is not None
        if kind is None:
            for task in self._native.tasks:
                if isinstance(task, PlainTask) and not task.started:
                    await task()

    def _append(self, task: BackgroundTask) -> None:
        self.tasks.append(task)
        if not self._late:
            if self._native is not None and isinstance(task, PlainTask):
                # At once, as FastAPI's own class has it: what somebody else adds there later runs later.
                self._native.tasks.append(task)
            return
        if isinstance(task, StoredCall):
            assert self._publication is not None
            self._publication.soon(self._flush_late)
            if task.uploads and self._middleware_stack:  # FastAPI closes the files of a request there, but later
                self._middleware_stack.push_async_callback(self._publication.settled)
        elif isinstance(task, PlainTask) and self._handed_over:
            self._run_late(task)

    def _adopted(self, task: BackgroundTask) -> BackgroundTask:
        """The same call as one of ours, where it was made with Starlette's class."""
        if isinstance(task, (StoredCall, PlainTask)):
            return task
        func = getattr(task, "func", None)
        if type(task) is BackgroundTask or is_task_function(func):
            return self._made(func, task.args, task.kwargs)
        refuse_wrapped(func)
        _check_function(task)
        return PlainTask(task)  # a subclass, whose ways we do not know

    def _made(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BackgroundTask:
        """One call, of a task function or of a plain one. A call that was made before stays the same call."""
        if is_task_function(func):
            return self._call(func, args, kwargs)
        if isinstance(func, partial) and leads_to_call(func.func):
            return self._made(func.func, (*func.args, *args), func.keywords | kwargs)
        if is_call(func):
            return self._made(func.__self__, args, kwargs)
        if isinstance(func, BackgroundTask) and not (args or kwargs):
            return self._adopted(func)
        refuse_wrapped(func)
        _check_function(func)
        return PlainTask(func, *args, **kwargs)

    def _call(self, func: TaskFunction[Any, Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> StoredCall:
        if self._publication is None and self._native is not None:
            raise NotInstalled(
                f"task {func.name!r} must be stored, but this application has no Afterwards that could: "
                "write `tasks = Afterwards(app)` where it is made; with `tasks = Afterwards()`, `tasks.install(app)`"
            )
        if self._publication is None:  # made outside a request, whose end nothing has to wait for
            self._publication = Publication(the_client(f"task {func.name!r}"), at_once=True)
        client = self._publication.client
        ordered = client.options.ordered if self._ordered is None else self._ordered
        chained = ordered and not func.settings.apart
        session = self._session if func.session is AS_CONFIGURED else func.session
        if func.settings.after is not None:
            self._check_after(func, func.settings.after, joins=session is not None)
        key = None if self._key is None else self._next_key(self._key)
        call = StoredCall(func, args, kwargs, self._publication, chained=chained, late=self._late, key=key)
        if session is not None:
            if call.uploads and call.uploads.any:
                raise InvalidOption(
                    f"task {func.name!r}: an uploaded file cannot be stored by a session's commit: write "
                    f"`await {func.name}.options(session=...).enqueue(...)`, or leave the session out for this task"
                )
            self._join(call, session)
        return call

    def _check_after(self, func: TaskFunction[Any, Any, Any], after: Stored, *, joins: bool) -> None:
        """Raise NotStored for a task that comes after one which will not be stored before it."""
        if after.stored:
            return
        assert self._publication is not None
        added = (task for buffer in (self, *self._publication.buffers) for task in buffer.tasks)
        before = next((task for task in added if isinstance(task, StoredCall) and task.handle is after), None)
        if before is None:
            func.calls.stored_after()
        elif before.joining is not None and not joins:
            raise NotStored(after.id, " before its session commits: give what comes after it the same session")

    def _request_key(self) -> str | None:
        """What the header says, for this method and path: a client's key means one request, not several."""
        if self._native is None:
            raise InvalidOption(
                "configure(idempotency_key=True) takes the header of a request, and these BackgroundTasks were made by "
                "hand: let FastAPI inject them, or give the key itself"
            )
        found = _header(self._headers)
        return found and f"{self._publication.origin if self._publication else ''} {found}"

    def _next_key(self, key: str) -> str:
        """The key of the next call of a request that has one: the same for the same call of a repeated request."""
        self._keyed += 1
        return as_key(key if self._keyed == 1 else f"{key}:{self._keyed}")

    async def _flush(self, buffers: Sequence["_BackgroundTasks"]) -> None:
        """Store what these have, as one chain in the order added."""
        if self._publication is not None:
            await store(buffers[0]._waiting if len(buffers) == 1 else partial(_waiting_in, buffers), self._publication)

    async def _flush_late(self) -> None:
        try:
            await self.flush()
        except (EngineError, QueueFull) as error:
            telemetry.not_stored(error, [call.func.name for call in self._waiting()], answered=True)
        except UNSTORABLE as error:
            failed = [call for call in self._waiting() if call.uploads and call.uploads.failed]
            telemetry.not_stored(error, [call.func.name for call in failed], answered=True)
            self.tasks[:] = [task for task in self.tasks if task not in failed]
            await self._flush_late()

    def _waiting(self) -> list[StoredCall]:
        """What is added and not stored, in the order added."""
        waiting: list[StoredCall] = []
        for place, added in enumerate(self.tasks):
            task = added
            if not isinstance(task, StoredCall):
                task = self.tasks[place] = self._adopted(task)  # somebody may have put it there by hand
            if isinstance(task, StoredCall) and task.waits_for_flush:
                waiting.append(task)
        return waiting if len(waiting) < 2 else list(dict.fromkeys(waiting))  # a list may hold one twice


def _check_function(func: object) -> None:
    """Raise NotAFunction for what cannot be called: FastAPI would find out after the response."""
    if isinstance(func, Call):
        name = func.function.name
        raise NotAFunction(f"add_task: {name}.call(...) is for `chain`: write `add_task({name}, ...)`")
    if not callable(func):
        raise NotAFunction(f"add_task: {called_already(func, 'add_task({}(1))', 'add_task({}, 1)')}")


def _put_in_order(tasks: list[BackgroundTask], plain: Sequence[BackgroundTask]) -> None:
    """Have these plain tasks, and no others of ours, among FastAPI's tasks; each stays in its place there."""
    places = [place for place, task in enumerate(tasks) if isinstance(task, PlainTask)]
    if len(places) == len(plain) and all(tasks[place] is task for place, task in zip(places, plain, strict=True)):
        return
    # Somebody changed the list by hand.
    for place, task in zip(places, plain, strict=False):
        tasks[place] = task
    for place in reversed(places[len(plain) :]):
        del tasks[place]
    behind = places[-1] + 1 if places else len(tasks)
    tasks[behind:behind] = plain[len(places) :]


def _waiting_in(buffers: Sequence[_BackgroundTasks]) -> list[StoredCall]:
    waiting = {call: None for buffer in buffers for call in buffer._waiting()}  # two lists may hold the same call
    return sorted(waiting, key=lambda call: call.number)


def _own_key(key: object) -> str | None:
    if not isinstance(key, str | bool):
        raise InvalidOption(
            f"configure(idempotency_key={key!r}): give the key as text, or True for the request's header"
        )
    return key or None if isinstance(key, str) else None


def _header(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The ``Idempotency-Key`` of a request; its quotation marks are those of a structured field (RFC 9651, 3.3.3)."""
    found = next((value for name, value in headers if name == b"idempotency-key"), b"")
    return found.decode("latin-1").strip().strip('"') or None


def anything_to_store(request: Publication) -> bool:
    """Whether anything may have been added that the end of the handler has not stored."""
    for buffer in request.buffers:  # noqa: SIM110  # `any` takes longer, in every request
        if len(buffer.tasks) != buffer._left_with:
            return True
    return False


async def store_made_by_hand(request: Publication) -> None:
    """Store what was added to objects that nobody injected, for which Starlette asks only after the response.

    If the engine fails, all that was added is dropped: the request is refused. Raises EngineError, QueueFull.
    """
    try:
        await request.buffers[0]._flush(request.buffers)
    except (EngineError, QueueFull, *UNSTORABLE) as error:
        if isinstance(error, EngineError):
            waiting = [call.func.name for buffer in request.buffers for call in buffer._waiting()]
            telemetry.not_stored(error, waiting, answered=False)
        request.refused = True
        for buffer in request.buffers:
            buffer.tasks.clear()
        request.discard()
        raise
