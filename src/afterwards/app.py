"""``Afterwards``: what a user makes. It puts the parts together."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any, Never

from fastapi import FastAPI

from afterwards import engines, environment
from afterwards.client.client import Client
from afterwards.client.handle import TaskHandle
from afterwards.client.installations import installations
from afterwards.core.claim import PausedTasks
from afterwards.core.errors import EngineError, InvalidOption, UnknownFunction, UnknownTask
from afterwards.core.keys import as_key
from afterwards.core.names import check_name
from afterwards.core.options import Options, lease_of
from afterwards.core.problems import Problem
from afterwards.core.routing import Unroutable
from afterwards.core.spans import as_span
from afterwards.core.spelling import check_names
from afterwards.core.task import Task
from afterwards.core.text import shown
from afterwards.engine import InAFile, Paused
from afterwards.tasks import compatibility
from afterwards.tasks.function import TaskFunction
from afterwards.tasks.registry import registry
from afterwards.tasks.schedules import ScheduleDesk
from afterwards.web import embedded_worker, install
from afterwards.worker.registration import find_unroutable


class Afterwards:
    """An installation: where an application's tasks are kept, and how they are run.

    ``Afterwards(app)`` anywhere in the file, before or after the routes; or ``Afterwards()`` and ``install(app)`` in an
    application factory. Nothing is opened before the application starts, or its first task is added.

    ``url`` is ``sqlite:///file.db`` (relative), ``sqlite:////folder/file.db`` or ``memory://``; without it
    ``AFTERWARDS_URL`` decides, then ``sqlite:///afterwards.db``. Spans are seconds or timedeltas. ``concurrency`` is
    the number of durable tasks at once in this process (20); when given, it limits plain functions too. ``threads`` is
    the number of ``def`` functions at once. With ``worker=False`` tasks are only stored here. With ``ordered=False`` a
    request's tasks do not wait for each other. ``grace`` is the time from the signal to the release of what still
    runs (20 seconds, 1 in development), ``lease`` how long a worker may be silent before its tasks are taken back,
    ``retention`` how long the record of a finished task is kept. ``max_file_size`` is the number of bytes that one
    uploaded file may have which is given to a task (32 MiB). ``max_queued`` is the number of tasks that may wait in
    each queue, or in those that a mapping names: past it a request gets 429, and stores nothing. ``propagate`` lists
    context variables whose values, plain JSON, attempts get as they were where the task was added; the trace of
    OpenTelemetry goes on by itself.
    Raises InvalidOption.
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
        ordered: bool = True,
        grace: float | timedelta | None = None,
        lease: float | timedelta = 30,
        retention: float | timedelta = timedelta(days=7),
        max_file_size: int = 32 * 1024 * 1024,
        max_queued: int | Mapping[str, int] | None = None,
        propagate: Sequence[ContextVar[Any]] = (),
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
            propagate=tuple(propagate) if isinstance(propagate, Iterable) else (propagate,),
        )
        if not isinstance(url, str | None):
            raise InvalidOption(f"url={shown(url)}: give a text, as 'sqlite:///tasks.db'")
        self.client = installations.add(Client(url or environment.url() or engines.DEFAULT_URL, self.options))
        self.schedules = ScheduleDesk(self.client)
        if app is not None:
            self.install(app)

    def install(self, app: FastAPI) -> None:
        """Attach to an application, once, before it starts. Raises AlreadyStarted."""
        if not isinstance(app, FastAPI):
            raise InvalidOption(f"Afterwards({app!r}): give the FastAPI application first, and the URL as `url=...`")
        install.attach(app, self.client, embedded_worker.installed(app, self.client))

    @property
    def healthy(self) -> bool:
        """Whether tasks that a request adds now will run: for the health check that a load balancer asks.

        False once a part of this process's worker has failed three times in a row by an error of its own, or its
        lifespan was ended under a serving process. Then requests that add tasks are answered with 503 and Retry-After;
        the log says why at CRITICAL. It may become true again. A store that is away for a while changes nothing here.
        """
        return self.client.health.trouble is None

    async def get(
        self, id: str | None = None, *, key: str | None = None, function: TaskFunction[Any, Any, Any] | None = None
    ) -> TaskHandle[Any]:
        """The handle of a task that is stored, by its id or by its ``idempotency_key``.

        Each function has keys of its own: where several have a task with this one, ``function`` says whose. Raises
        UnknownTask, for an id is never just "pending".
        """
        if (id is None) == (key is None) or not isinstance(id if key is None else key, str):
            raise InvalidOption(f"tasks.get(id={shown(id)}, key={shown(key)}): give one of them, as text")
        task = await (self.client.get(id) if id is not None else self._with_key(key or "", function))
        try:
            return registry.get(task.name).handle(task.id, self.client)
        except UnknownFunction:
            return TaskHandle(task.id, self.client, lambda result: None if result is None else json.loads(result))

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
        """Let no worker begin the tasks of these functions, or of a queue, until ``resume``. What runs goes on.

        Tasks are stored meanwhile as always. It holds for all processes, and is kept when they end.
        """
        await (await self.client.open()).pause(_paused(what, queue))

    async def resume(self, *what: TaskFunction[Any, Any, Any], queue: str | None = None) -> None:
        """Begin the tasks of these functions, or of a queue, again."""
        await (await self.client.open()).resume(_paused(what, queue))

    async def paused(self) -> PausedTasks:
        """All that is paused: names of task functions, and queues."""
        paused = await (await self.client.open()).paused()
        return PausedTasks(queues=paused.queues, names=paused.names)

    async def backup(self, path: str | Path) -> None:
        """Write a copy of all tasks, as they stand at one instant, to a file; one that is there is replaced.

        Requests and workers go on meanwhile. To copy the file itself would leave out what is in its log. Raises
        EngineError for ``memory://``, and where the copy cannot be written.
        """
        engine = await self.client.open()
        if not isinstance(engine, InAFile):
            where = engines.shown(self.client.url)
            raise EngineError(
                f"tasks in {where} are in no file, so none can be copied to {path}: give sqlite:///file.db"
            )
        await engine.backup(Path(path))

    async def check(self) -> list[Problem]:
        """Whether the task functions that this process has imported could run what is stored and has not finished.

        For a deploy: run it with the new code, while the old one still works. It needs no worker and changes nothing.
        Problems that are alike are one; they name parameters and types, and never show a value.
        """
        return await compatibility.check(self.client)

    async def unroutable(self) -> list[Unroutable]:
        """What has waited for ten minutes, while no worker lived that would take it, the longest waiting first.

        Nothing becomes of it until a worker does. What is paused, or waits for its turn, is not listed.
        """
        return await find_unroutable(await self.client.open())


def _paused(functions: Sequence[TaskFunction[Any, Any, Any]], queue: str | None) -> Paused:
    for function in functions:
        if not isinstance(function, TaskFunction):
            raise InvalidOption(f"{function!r} is no task function: give what @task made, or queue=...")
    if not functions and queue is None:
        raise InvalidOption("nothing is named: give task functions, or queue=...")
    queues = frozenset() if queue is None else frozenset({check_name("queue", queue)})
    return Paused(queues=queues, names=frozenset(name for one in functions for name in (one.name, *one.aliases)))


def _names(queues: Collection[str] | None) -> frozenset[str] | None:
    if isinstance(queues, str) or (queues is not None and not isinstance(queues, Collection)):
        raise InvalidOption(f"queues={queues!r}: give a collection of names, as {{{str(queues)!r}}}")
    return None if queues is None else frozenset(queues)


def _decide(worker: bool | None) -> bool:
    """Code decides, then the environment, then the default: a worker in every process that serves."""
    if worker is not None:
        return worker
    said = environment.worker()
    return True if said is None else said


def _default_grace() -> float:
    return 1 if environment.development() else 20
