"""``Afterwards``, the installation of an application: its options, its store and its worker."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any, Never, TypeVar, overload

from fastapi import APIRouter, FastAPI
from typing_extensions import ParamSpec

from afterwards import engines, environment
from afterwards.client.client import Client
from afterwards.client.handle import TaskHandle
from afterwards.client.installations import installations
from afterwards.core.errors import EngineError, InvalidOption, NotAFunction
from afterwards.core.options import Options, lease_of
from afterwards.core.problems import Problem
from afterwards.core.routing import Unroutable
from afterwards.core.spans import as_span
from afterwards.core.spelling import check_names
from afterwards.core.text import shown
from afterwards.dashboard import place
from afterwards.dispatch.celery.calls import CeleryTask
from afterwards.dispatch.celery.handle import CeleryHandle, send_now
from afterwards.dispatch.fleet import Fleet, check_fleet
from afterwards.engine import InAFile
from afterwards.tasks import compatibility
from afterwards.tasks.desk import TaskDesk
from afterwards.tasks.function import Call, TaskFunction
from afterwards.tasks.schedules import ScheduleDesk
from afterwards.tasks.several import enqueue_many
from afterwards.tasks.wrapped import enqueues, is_task_function
from afterwards.web import health, install, runners
from afterwards.web.fleet_worker import serve_in
from afterwards.web.task_router import FROM_ANNOTATION, make_router
from afterwards.worker.registration import find_unroutable

P = ParamSpec("P")
R = TypeVar("R")


class Afterwards(TaskDesk):
    """Install durable tasks in a FastAPI application.

    Write ``Afterwards(app)`` anywhere in the file, before or after the routes. An application factory makes
    ``Afterwards()`` first and calls ``install(app)`` later. Nothing is opened until the application starts or adds its
    first task.

    Spans are seconds or timedeltas. Raises InvalidOption.

    - ``url``: ``sqlite:///file.db`` (relative), ``sqlite:////folder/file.db`` (absolute),
      ``postgresql://user:password@host/database`` or ``memory://``. Default: the environment variable
      ``AFTERWARDS_URL``, then ``sqlite:///afterwards.db``.
    - ``concurrency``: durable tasks that run at once in this process (20). When given, it also limits plain functions.
    - ``threads``: ``def`` functions that run at once.
    - ``queues``: the queues that this process takes tasks from. Default: all.
    - ``worker=False``: this process stores tasks and runs none.
    - ``dispatch``: the fleet of other software on which tasks run, as ``CeleryDispatch(celery_app)`` of
      ``afterwards.celery``. This process then runs no worker, but sends tasks to the fleet when they may start; with
      ``worker=False`` it only stores them. ``queues`` are those from which it sends. ``concurrency`` does not apply:
      the fleet decides how many run at once. Not for ``memory://``.
    - ``ordered=False``: the tasks of a request do not wait for each other.
    - ``grace``: time from the shutdown signal until unfinished tasks are released (20 seconds, 1 in development).
    - ``lease``: time without a heartbeat after which a worker's tasks are reclaimed (30 seconds; an hour at most).
    - ``retention``: time that the record of a finished task is kept.
    - ``max_file_size``: bytes that an uploaded file may have as a task's argument (32 MiB).
    - ``max_queued``: tasks that may wait in each queue, or in the queues that a mapping names. When a queue is full,
      the request is answered with 429 and stores nothing.
    - ``max_streams``: clients of this process that may follow tasks by server-sent events (100). Others get 503.
    - ``propagate``: context variables with plain JSON values. An attempt gets the values that they had where its task
      was added. OpenTelemetry's trace is always propagated.
    - ``dashboard``: the path of the dashboard, as ``"/afterwards"`` (``pip install "afterwards[dashboard]"``).
    - ``auth``: the dependency that decides who may see the dashboard: ``auth=Depends(admin)``. See
      ``dashboard_router``.
    """

    def __init__(
        self,
        app: FastAPI | None = None,
        url: str | None = None,
        *,
        concurrency: int | None = None,
        threads: int = 20,
        queues: Collection[str] | None = None,
        worker: bool | None = None,
        dispatch: Fleet | None = None,
        ordered: bool = True,
        grace: float | timedelta | None = None,
        lease: float | timedelta = 30,
        retention: float | timedelta = timedelta(days=7),
        max_file_size: int = 32 * 1024 * 1024,
        max_queued: int | Mapping[str, int] | None = None,
        max_streams: int = 100,
        propagate: Sequence[ContextVar[Any]] = (),
        dashboard: str | None = None,
        auth: Any = None,
        **unknown: Never,
    ) -> None:
        check_names(Afterwards, unknown)
        self.options = Options(
            concurrency=concurrency,
            threads=threads,
            queues=_names(queues),
            worker=_decide(worker),
            ordered=ordered,
            grace=as_span(_default_grace() if grace is None else grace, "grace"),
            lease=lease_of(lease),
            retention=as_span(retention, "retention"),
            max_file_size=max_file_size,
            max_queued=max_queued,
            max_streams=max_streams,
            propagate=tuple(propagate) if isinstance(propagate, Iterable) else (propagate,),
        )
        if not isinstance(url, str | None):
            raise InvalidOption(f"url={shown(url)}: give a text, as 'sqlite:///tasks.db'")
        if dispatch is not None:
            check_fleet(dispatch)
        self._fleet = dispatch
        store = engines.absolute(url or environment.url() or engines.DEFAULT_URL)
        self.client = installations.add(Client(store, self.options))
        self.schedules = ScheduleDesk(self.client)
        self._dashboard = place.checked(dashboard, auth)
        self._auth = auth
        if app is not None:
            self.install(app)

    def install(self, app: FastAPI) -> None:
        """Install into an application, before it starts. Raises AlreadyStarted or AlreadyInstalled."""
        if not isinstance(app, FastAPI):
            raise InvalidOption(f"Afterwards({app!r}): give the FastAPI application first, and the URL as `url=...`")
        install.attach(app, self.client, runners.installed(app, self.client, self._fleet))
        if self._fleet is not None:
            self._fleet.attach(serve_in(self._fleet, app, self.client))
        if self._dashboard is not None:
            app.include_router(self.dashboard_router(auth=self._auth), prefix=self._dashboard)

    def dashboard_router(self, *, auth: Any = None) -> APIRouter:
        """Return the dashboard and its API, for ``app.include_router(..., prefix="/ops")``. Needs jinja2.

        ``auth`` is a dependency, as ``Depends(admin)``. Whoever it refuses, by raising an HTTPException, gets that
        answer for everything below the prefix. What it returns decides what the others may do:

        - ``Access.READ`` (or "read"): see everything, change nothing
        - ``Access.ACT`` (or "act"), or anything else, as None or a user: also requeue, cancel, delete, start, pause
        - ``Access.NONE`` (or "none"), or False: nothing

        Actions are logged with the name in what it returned (a text, or a ``username``, ``name``, ``email`` or ``id``),
        else with the client's address. To return both, return ``Access.READ, user``. Without ``auth`` it is closed,
        except for a browser on the same machine under ``fastapi dev``. Raises InvalidOption.
        """
        # Imported here: applications without a dashboard need not load it, nor have what it needs.
        try:
            from afterwards.dashboard.router import dashboard_router
        except ModuleNotFoundError as error:
            if error.name != "jinja2":
                raise
            raise InvalidOption('the dashboard needs the package jinja2: pip install "afterwards[dashboard]"') from None

        return dashboard_router(self.client, auth)

    @property
    def healthy(self) -> bool:
        """True if tasks that are added now will run. Use it in a load balancer's health check.

        It becomes False when a part of this process's worker or dispatcher has failed three times in a row with an
        error of its own, or when the lifespan has ended while the process still serves. Requests that add tasks are
        then answered with 503 and Retry-After, and the log gives the reason at CRITICAL. It can become True again. A
        store that is unavailable for a while does not change it.
        """
        return self.client.health.trouble is None

    def health_router(self) -> APIRouter:
        """Return the routes ``/healthz``, ``/readyz`` and ``/metrics``, to be included where you want them.

        ``app.include_router(tasks.health_router(), dependencies=[Depends(monitoring)])``. ``/healthz`` answers 503 if a
        restart would help: the worker of this process has stopped claiming or its dispatcher sending, tasks added now
        would not run, or the event loop was blocked for ten seconds. ``/readyz`` also fails while the store does not
        answer. ``/metrics`` has the counts of the whole store in Prometheus' text format. They show the names of queues
        and hosts, and no task.
        """
        return health.router(self.client)

    @overload
    async def enqueue(
        self, function: TaskFunction[P, Any, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[R]: ...

    @overload
    async def enqueue(self, function: CeleryTask[P, R], /, *args: P.args, **kwargs: P.kwargs) -> CeleryHandle[R]: ...

    @enqueues("background_tasks.add_task(f, ...)")
    async def enqueue(self, function: Any, /, *args: Any, **kwargs: Any) -> TaskHandle[Any] | CeleryHandle[Any]:
        """Store a call of a ``@task`` function now, in this installation: else as ``function.enqueue(...)``.

        A Celery task, or a signature of one, is sent to Celery's broker, and is sent when this returns. Raises
        BrokerUnavailable if the broker does not accept it, which a request is answered for with 503, UnstorableArgument
        for an argument that Celery's serializer cannot write, and NotAFunction for anything else.
        """
        if is_task_function(function):
            return await function.enqueue_in(self.client, args, kwargs)
        if isinstance(function, Call):
            name = function.function.name
            raise NotAFunction(f"tasks.enqueue: {name}.call(...) is for `chain`: write `tasks.enqueue({name}, ...)`")
        return await send_now(function, args, kwargs)

    @overload
    async def enqueue_many(self, calls: Iterable[Call[R]]) -> list[TaskHandle[R]]: ...

    @overload
    async def enqueue_many(self, calls: Iterable[Call[Any]]) -> list[TaskHandle[Any]]: ...

    @enqueues("await tasks.enqueue_many(...)")
    async def enqueue_many(self, calls: Iterable[Call[Any]]) -> list[TaskHandle[Any]]:
        """Store many calls at once: ``await tasks.enqueue_many([send.call(user) for user in users])``.

        All or none are stored, in one transaction, which is much faster than one ``enqueue`` after the other. The calls
        may be of several functions, and are independent of each other. Returns their handles in the order given, no
        handles for no calls. A call that is given twice makes two tasks, unless a uniqueness rule applies. They are
        stored in this installation, even in a request or task of another one. Options of a call:
        ``send.options(delay=60).call(user)``; only ``session`` and ``connection`` cannot be set.
        Raises InvalidOption for anything that is not a call, and what ``enqueue`` raises.
        """
        return await enqueue_many(calls, self.client)

    @overload
    def enqueue_many_sync(self, calls: Iterable[Call[R]]) -> list[TaskHandle[R]]: ...

    @overload
    def enqueue_many_sync(self, calls: Iterable[Call[Any]]) -> list[TaskHandle[Any]]: ...

    @enqueues("tasks.enqueue_many_sync(...), or await tasks.enqueue_many(...)")
    def enqueue_many_sync(self, calls: Iterable[Call[Any]]) -> list[TaskHandle[Any]]:
        """Store many calls at once, from a thread or a script. Raises RuntimeError on a running event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(enqueue_many(calls, self.client))
        raise RuntimeError(
            "tasks.enqueue_many_sync() was called on a running event loop, which it would block: "
            "write `await tasks.enqueue_many(...)` in async code"
        )

    async def backup(self, path: str | Path) -> None:
        """Write a consistent snapshot of all tasks to a file. An existing file is replaced.

        Requests and workers continue meanwhile. Do not copy the database file itself: its write-ahead log would be
        missing. Raises EngineError for ``memory://`` and when the snapshot cannot be written.
        """
        engine = await self.client.open()
        if not isinstance(engine, InAFile):
            where = engines.shown(self.client.url)
            raise EngineError(
                f"tasks in {where} are in no file, so none can be copied to {path}: give sqlite:///file.db"
            )
        await engine.backup(Path(path))

    def router(
        self,
        *functions: TaskFunction[Any, Any, Any],
        owner: Callable[..., Any],
        result: Any = FROM_ANNOTATION,
        errors: bool = False,
        **unknown: Never,
    ) -> APIRouter:
        """Return a router that shows tasks to the application's own users.

        ``app.include_router(tasks.router(owner=owns), prefix="/tasks")`` adds ``GET /tasks/{id}`` (the status),
        ``GET /tasks/{id}/result``, ``POST /tasks/{id}/cancel`` and ``GET /tasks/{id}/events`` (server-sent events).

        - ``functions``: the router answers for their tasks only, and its result is typed by their return annotations.
          Without functions it answers for all tasks, and the result may be anything.
        - ``owner``: a function that returns True if the client may see a task. It is a dependency of FastAPI's, so its
          parameters are provided as those of a path operation. The one annotated ``TaskRecord`` gets the record:
          ``def owns(task: TaskRecord, user: User = Depends(current_user)) -> bool``. Unknown and refused ids are both
          answered with 404.
        - ``result``: the type of the result, instead of the annotations.
        - ``errors``: whether the status has the message of an exception or the reason of a cancel. Tracebacks and
          arguments are never shown, and secrets are hidden.

        Raises InvalidOption.
        """
        check_names(Afterwards.router, unknown)
        return make_router(self.client, functions, owner=owner, result=result, errors=errors)

    async def check(self) -> list[Problem]:
        """Return the unfinished tasks that the task functions imported here could not run, grouped by problem.

        Run it before a deploy, with the new code, while the old code still runs. It needs no worker and changes
        nothing. Problems name parameters and types, and never show a value.
        """
        return await compatibility.check(self.client)

    async def unroutable(self) -> list[Unroutable]:
        """Return tasks that have waited for ten minutes and that no live worker would claim, longest wait first.

        They stay stored until such a worker starts. Paused tasks, and tasks that a live worker will claim in their
        turn, are not listed.
        """
        return await find_unroutable(await self.client.open())


def _names(queues: Collection[str] | None) -> frozenset[str] | None:
    if isinstance(queues, str) or (queues is not None and not isinstance(queues, Collection)):
        raise InvalidOption(f"queues={queues!r}: give a collection of names, as {{{str(queues)!r}}}")
    return None if queues is None else frozenset(queues)


def _decide(worker: bool | None) -> bool:
    """Return the argument, else the environment's value, else True."""
    if worker is not None:
        return worker
    said = environment.worker()
    return True if said is None else said


def _default_grace() -> float:
    return 1 if environment.development() else 20
