"""``BackgroundTasks``: the tasks of one request, stored before its response leaves."""

from collections.abc import Callable, Sequence
from typing import Any, Never, TypeVar, overload

import fastapi
from fastapi import HTTPException
from starlette.background import BackgroundTask
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect
from typing_extensions import ParamSpec

from afterwards import environment, telemetry
from afterwards.client.connections import check_sync_connection
from afterwards.client.handle import TaskHandle
from afterwards.client.request import RequestTasks, request_tasks
from afterwards.client.sqlalchemy import check_session
from afterwards.client.uploads import UNSTORABLE
from afterwards.core.errors import InvalidOption, QueueFull
from afterwards.core.keywords import AS_CONFIGURED, AsConfigured, DatabaseConnection, DatabaseSession
from afterwards.core.spelling import check_names
from afterwards.dispatch.celery.calls import CeleryTask
from afterwards.dispatch.celery.handle import CeleryHandle
from afterwards.tasks.function import TaskFunction
from afterwards.web.accepted import Accepted
from afterwards.web.buffer import Buffer, drop, flush
from afterwards.web.durable_calls import DurableCall, StoredCall
from afterwards.web.exit_stacks import ExitStacks
from afterwards.web.idempotency import key_from_header, own_key
from afterwards.web.phase import Phase
from afterwards.web.plain_tasks import PlainTask
from afterwards.web.refusals import RETRY_AFTER, RETRY_LATER, UNAVAILABLE, UNPROCESSABLE, away

P = ParamSpec("P")
R = TypeVar("R")


FASTAPIS_ADD_TASK = fastapi.BackgroundTasks.add_task
"""FastAPI's method. Tests may replace it by a mock, agents by a wrapper. Calls that a wrapper adds are stored, too."""

BOTH_GIVEN = "configure: session and connection are both given: give one of them, and None for the other"


class BackgroundTasks(Buffer):
    """The tasks of a request.

    Plain functions run in this process after the response, as FastAPI's. Calls of ``@task`` functions are stored when
    the handler has returned and before the response begins, all or none, and start when the request has ended. If the
    handler raises, nothing is stored and nothing runs. ``tasks`` lists all of them in the order added.
    """

    # FastAPI creates the injected object, and its class is changed later: it has only these defaults.
    _stacks: ExitStacks | None = None  # None: created by hand
    _headers: Sequence[tuple[bytes, bytes]] = ()
    _sees_raise = False

    def __init__(self, tasks: Sequence[BackgroundTask] | None = None) -> None:
        super().__init__()
        self._request_tasks = request_tasks.get()
        if self._request_tasks:
            self._request_tasks.buffers.append(self)
        for task in tasks or ():
            self._append(self._converted(task))

    @overload  # a task function's call returns a handle, FastAPI's returns None: the first match counts
    def add_task(  # type: ignore[overload-overlap]
        self, func: TaskFunction[P, Any, R], *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[R]: ...
    @overload
    def add_task(self, func: CeleryTask[P, R], *args: P.args, **kwargs: P.kwargs) -> CeleryHandle[R]: ...
    @overload
    def add_task(self, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None: ...
    def add_task(self, func: Any, *args: Any, **kwargs: Any) -> TaskHandle[Any] | CeleryHandle[Any] | None:
        """Add a call, to run after the response.

        A ``@task`` function's arguments are checked here, and its handle is returned; it can be asked once the task is
        stored. An ``UploadFile`` among them is stored together with the task: leave it open. Raises TypeError,
        UnstorableArgument and TooLarge for a call that could not be stored, NotInstalled without ``Afterwards(app)``,
        WrappedTaskFunction for a decorator round a task function, which would run it without storing it, NotAFunction
        for ``add_task(f(1))``.
        A call added after the response began (streams, the exit of dependencies) is stored at once.

        A Celery task, or a signature of one, is sent to Celery's broker when the ``@task`` calls are stored; its
        arguments are checked here, too, and a ``CeleryHandle`` is returned. If the broker does not accept it, the
        request is answered with 503, and what was stored with it is cancelled.
        """
        if fastapi.BackgroundTasks.add_task is not FASTAPIS_ADD_TASK:
            return super().add_task(func, *args, **kwargs)
        task = self._make(func, args, kwargs)
        self._append(task)
        return task.handle if isinstance(task, DurableCall) else None

    def configure(
        self,
        *,
        ordered: bool | None = None,
        session: DatabaseSession | AsConfigured | None = AS_CONFIGURED,
        connection: DatabaseConnection | AsConfigured | None = AS_CONFIGURED,
        idempotency_key: str | bool | None = None,
        **unknown: Never,
    ) -> None:
        """Set options of the durable tasks added from now on. Options that are not given stay as they are.

        ``ordered``: whether they wait for each other, in the order added.

        ``session``: an SQLAlchemy ``Session`` or ``AsyncSession``. Its next commit, wherever that is, stores the tasks,
        and a rollback drops them, like objects given to ``session.add``. None ends that. If the session works on the
        file or the database in which the tasks are kept, they commit together with its rows; if not, they are stored
        after its commit.
        They take their place in the request's order when they are stored. If the session is never committed they are
        not stored, which is logged when the request has ended. If the handler raises, tasks that are not committed by
        then are not stored.
        Only one transaction writes to an SQLite file at a time. While the session's has written and not ended, other
        writes (``flush``, tasks without the session, ``await f.enqueue()``) wait for 5 seconds at most, and then raise
        EngineUnavailable: commit first, or give them the session, too.

        ``connection``: a ``Connection`` of psycopg's, on the database of the tasks. ``add_task`` inserts each task in
        its open transaction at once, so that both commit or roll back together, whatever becomes of the request. What
        was committed starts when the request has ended; what is committed later, a minute after it was added.
        With an ``AsyncConnection`` write ``await f.options(connection=...).enqueue(...)``. None ends that.

        ``idempotency_key``: a repeated request with the same key stores nothing new, until its tasks' retention ends;
        its handles are those of the first request. True takes the key from the ``Idempotency-Key`` header, if there is
        one, and applies to this method and path. If you give the key, the first task has it unchanged, for
        ``tasks.get(key=...)``, the next ones have ``key:2``, ``key:3`` and so on. Any client may choose any key, so
        prefix a client's key with its owner (``f"{user.id}:{key}"``).
        """
        check_names(BackgroundTasks.configure, unknown)
        if ordered is not None:
            if not isinstance(ordered, bool):
                raise InvalidOption(f"configure(ordered={ordered!r}): give True or False")
            self._ordered = ordered
        if session is not AS_CONFIGURED:
            if session is not None:
                check_session(session)
                if connection is AS_CONFIGURED and self._connection is not None:
                    raise InvalidOption(BOTH_GIVEN)
            self._session = session
        if connection is not AS_CONFIGURED:
            if connection is not None:
                if self._session is not None:
                    raise InvalidOption(BOTH_GIVEN)
                check_sync_connection(connection, "await f.options(connection=...).enqueue(...)")
            self._connection = connection
        if idempotency_key is not None:
            self._key = self._request_key() if idempotency_key is True else own_key(idempotency_key)

    def accepted(self, handle: TaskHandle[Any]) -> Accepted:
        """Return the answer 202 for a task that was added: ``return background_tasks.accepted(handle)``.

        Its body is ``{"id": ...}``. ``Retry-After`` says when to ask for the task, and ``Location`` where: the path of
        its status in the application's ``tasks.router(...)``, behind ``root_path``. Without such a router there is no
        ``Location``. It leaves when the task is stored, like any answer. Raises InvalidOption if no handle is given.
        """
        return Accepted(handle)

    async def flush(self) -> None:
        """Store the calls added so far now, all or none. Their tasks still start when the request has ended.

        Raises EngineUnavailable, which ``Afterwards`` answers with 503.
        """
        await flush([self], self._request_tasks)

    async def __call__(self) -> None:
        """Store the durable tasks, unless that was done when the handler ended, and run the plain ones."""
        if self._phase is Phase.HANDLING:
            self._tell_if_late()
            await self.flush()
        for task in self.tasks:
            if not isinstance(task, DurableCall):
                await task()

    def serve(self, request: RequestTasks, connection: HTTPConnection) -> None:
        """Become the tasks of a request."""
        self._request_tasks = request
        request.buffers.append(self)
        self._headers = connection.scope["headers"]
        self._stacks = ExitStacks(connection.scope)
        if connection.scope["type"] == "websocket":
            self._phase = Phase.CONVERSING

    def leave_when_handler_ends(self) -> bool:
        """Have FastAPI call ``leave``. Return whether this version supports that."""
        assert self._stacks is not None
        return self._stacks.when_handler_ends(self.leave)

    async def leave(self, kind: type[BaseException] | None, *_: object) -> None:
        """Store the durable tasks when the handler has ended, and have the plain ones run; neither if it raised.

        ``kind`` is the class of what it raised; a WebSocketDisconnect does not count. Calls added from now on are
        stored at once. Raises HTTPException: 503 when the engine fails, 429 when a queue is full, 413 for too large a
        file.
        """
        if kind is not None and not issubclass(kind, WebSocketDisconnect):
            self._discard()
            return
        assert self._request_tasks is not None
        try:
            # This includes objects created by hand, which Starlette calls only after the response. If it is
            # cancelled, all or nothing is stored, and stored tasks become due by themselves.
            await flush(self._request_tasks.buffers, self._request_tasks)
        except UNAVAILABLE as error:
            telemetry.not_stored(error, [call.name for call in self.waiting()], answered=False)
            self._refuse(self._request_tasks)
            raise HTTPException(503, away(error), headers=RETRY_AFTER) from error
        except QueueFull as error:
            self._refuse(self._request_tasks)
            raise HTTPException(429, str(error), headers=RETRY_LATER) from error
        except (*UNSTORABLE, *UNPROCESSABLE):
            self._refuse(self._request_tasks)
            raise
        conversed, self._phase = self._phase is Phase.CONVERSING, Phase.RETURNED
        self.flushed_length = len(self.tasks)
        if plain := [task for task in self.tasks if not isinstance(task, DurableCall)]:
            await self._run_plain(conversed=conversed, mixed=len(plain) < len(self.tasks))

    async def _run_plain(self, *, conversed: bool, mixed: bool) -> None:
        """Make plain tasks run: FastAPI drops them in websockets, and if the response has a ``background``."""
        assert self._request_tasks is not None
        assert self._stacks is not None
        if mixed:
            telemetry.mixed(self._request_tasks.origin)
        if conversed:
            await self()
        else:
            self._stacks.when_request_closes(self._run_dropped)

    async def _run_dropped(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            for task in self.tasks:
                if isinstance(task, PlainTask) and not task.started:
                    await task()

    def _tell_if_late(self) -> None:
        """Log calls that are stored after a response which did not know them: this was made outside its request."""
        answering = request_tasks.get()
        if answering and answering.answered and self._request_tasks is not answering:
            telemetry.stored_after_response(
                answering.origin, [call.name for call in self.waiting()], development=environment.development()
            )

    def _refuse(self, request: RequestTasks) -> None:
        """Drop all calls added so far. Calls that a dependency's exit adds later are stored."""
        drop(request)
        request.discard()
        self._phase = Phase.REFUSED

    def _discard(self) -> None:
        """Drop all calls because the handler raised. Calls that a dependency's exit adds later are stored."""
        assert self._request_tasks is not None
        if self._phase is Phase.HANDLING:  # calls in a websocket are stored at once: they may be stored already
            self.tasks.clear()
            self._request_tasks.buffers[:] = [self]  # drops calls of objects created by hand, too
        self._request_tasks.discard()
        self._phase = Phase.REFUSED

    def _append(self, task: BackgroundTask) -> None:
        self.tasks.append(task)
        if self._phase is Phase.HANDLING:
            return
        if isinstance(task, DurableCall):
            self._store_soon()
            if task.uploads and self._stacks:  # FastAPI closes the files of a request later than this
                self._stacks.after_everything(self._settle)
        elif self._phase is Phase.RETURNED and self._stacks:  # FastAPI runs it, unless it has finished its list already
            self._stacks.after_everything(self._run_dropped)

    async def _settle(self, *_: object) -> None:
        assert self._request_tasks is not None
        await self._request_tasks.settled()

    def _join(self, call: StoredCall, session: DatabaseSession) -> None:
        super()._join(call, session)
        if self._stacks and self._phase is Phase.HANDLING and not self._sees_raise:
            # Must see the handler's exception first: the exit of an outer dependency may commit the session.
            self._sees_raise = self._stacks.when_handler_ends(self._see_raise)

    async def _see_raise(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, WebSocketDisconnect):
            assert self._request_tasks is not None
            self._request_tasks.discard()

    def _request_key(self) -> str | None:
        """Return the header's key, qualified by method and path: a client's key identifies one request."""
        if self._stacks is None:
            raise InvalidOption(
                "configure(idempotency_key=True) reads the header of a request, and these BackgroundTasks belong to "
                "none: let FastAPI inject them, or give the key as text"
            )
        found = key_from_header(self._headers)
        return found and f"{self._request_tasks.origin if self._request_tasks else ''} {found}"
