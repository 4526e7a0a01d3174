"""``@task``: functions whose calls can be stored, and the names that they are stored under."""

import asyncio
import copy
import inspect
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, Unpack, cast, overload

from typing_extensions import ParamSpec

from afterwards import telemetry
from afterwards.client import Client, the_client
from afterwards.core.codec import Codec, ResultCodec
from afterwards.core.errors import (
    DuplicateName,
    EngineError,
    InvalidOption,
    InvalidTaskFunction,
    UnknownFunction,
    UnresolvedAnnotation,
)
from afterwards.core.limits import Limit
from afterwards.core.names import check_name
from afterwards.core.options import (
    AS_CONFIGURED,
    AsConfigured,
    DatabaseSession,
    OneCallSettings,
    TaskOptions,
    TaskSettings,
)
from afterwards.core.schedule import Missed, Schedule, wanted
from afterwards.core.task import FailedTask, NewTask
from afterwards.handle import TaskHandle
from afterwards.joining import Joining
from afterwards.native import here, refuse_native
from afterwards.publication import Publication, publication
from afterwards.session import check_session, join
from afterwards.uploads import Uploads
from afterwards.worker.planning import Plan, plan

P = ParamSpec("P")
T = TypeVar("T")  # what a direct call gives: for `async def`, a coroutine
R = TypeVar("R")  # what the function returns in the end


class TaskFunction(Generic[P, T, R]):
    """A function whose calls survive: what ``@task`` makes. Calling it directly is a plain call."""

    def __init__(
        self,
        function: Callable[P, T],
        name: str,
        settings: TaskOptions,
        on_failure: Callable[[FailedTask], Any] | None = None,
        *,
        schedule: Schedule | None = None,
        missed: Missed = Missed.LATEST,
    ) -> None:
        self.function = function
        self.name = name
        self.settings = settings
        self.base = settings  # the function's own, where `settings` are those of one call
        self.session: DatabaseSession | AsConfigured | None = AS_CONFIGURED  # of one call; never stored
        self.on_failure = on_failure
        self.limit: Limit | None = None
        self.schedule = schedule
        self.missed = missed
        self.place = _place(function)
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        if self.is_async:
            _mark_coroutine_function(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        refuse_native(self, self.name, here())
        return self.function(*args, **kwargs)

    def __set_name__(self, owner: type, name: str) -> None:
        raise InvalidTaskFunction(
            f"@task on {owner.__qualname__}.{name}: a method cannot be stored, for its object is gone by the time it "
            "runs. Make it a function of the module that takes what it needs as arguments"
        )

    def __repr__(self) -> str:
        return f"<task function {self.name!r} of {self.__module__}>"

    @property
    def is_async(self) -> bool:
        return False

    @cached_property
    def plan(self) -> Plan:
        """Its dependencies. Raises when one of them needs HTTP."""
        return plan(self.function, name=self.name)

    @cached_property
    def codec(self) -> Codec:
        """Its arguments. Raises when a type cannot be written as JSON."""
        return Codec(self.function, name=self.name, injected=self.plan.injected)

    @cached_property
    def results(self) -> ResultCodec:
        return ResultCodec(self.function, name=self.name)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """Store a call now, to start as soon as a worker is free; when this returns, it survives.

        Belongs to no request: it waits for nothing that was added before, and for no request to end. With
        ``options(session=...)`` it is stored by the next commit of that session instead.
        Raises NotInstalled, EngineUnavailable, UnstorableArgument, TooLarge.
        """
        client = the_client(f"task {self.name!r}")
        asked_by = publication.get()
        id = client.new_id()
        arguments, uploads = self.written(args, kwargs, id, client)
        if uploads:
            await uploads.store()
        if self.has_session:
            return self._join(client, arguments, id, asyncio.get_running_loop())
        new = self.new_task(client, arguments, id=id, origin=asked_by.origin if asked_by else None)
        if asked_by:
            asked_by.used = True
        [stored] = await client.enqueue([new])
        client.start(stored)
        return self.handle(new.id, client)

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """As ``enqueue``, for threads and scripts. Raises RuntimeError on a running event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self.has_session:
                client = the_client(f"task {self.name!r}")
                return self._join(client, self.codec.dump(args, kwargs), client.new_id(), None)
            return asyncio.run(self.enqueue(*args, **kwargs))
        raise RuntimeError(
            f"{self.name}.enqueue_sync() was called on a running event loop, which it would block: "
            f"write `await {self.name}.enqueue(...)` in async code"
        )

    def options(self, **settings: Unpack[OneCallSettings]) -> Self:
        """A copy whose calls have other options: ``background_tasks.add_task(f.options(delay=60), x)``."""
        changed = copy.copy(self)
        if "session" in settings:
            changed.session = settings.pop("session")
            if changed.session is not None:
                check_session(changed.session)
        changed.settings = self.settings.called_with(settings)
        return changed

    @property
    def has_session(self) -> bool:
        return self.session not in (None, AS_CONFIGURED)

    def written(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], id: str, client: Client
    ) -> tuple[str, Uploads | None]:
        """A call's arguments as JSON, and the files among them, which must be stored before the task with this id."""
        if not self.codec.files:
            return self.codec.dump(args, kwargs), None
        uploads = Uploads(self.name, id, client)
        return self.codec.dump(args, kwargs, refer=uploads.refer), uploads

    def new_task(
        self,
        client: Client,
        arguments: str,
        *,
        id: str | None = None,
        origin: str | None = None,
        after: str | None = None,
        held: bool = False,
    ) -> NewTask:
        """A call with these arguments, as it will be stored."""
        settings = self.settings
        return NewTask(
            id=id or client.new_id(),
            name=self.name,
            arguments=arguments,
            queue=settings.queue,
            priority=settings.priority,
            overrides=None if settings is self.base else settings.overrides(self.base),
            retention=client.options.retention if settings.retention is None else settings.retention,
            origin=origin,
            after=after,
            held=held,
            wait=settings.delay or timedelta(),
            run_at=settings.run_at,
        )

    def _join(self, client: Client, arguments: str, id: str, loop: asyncio.AbstractEventLoop | None) -> TaskHandle[R]:
        """Have a call stored with the next commit of its session."""
        asked_by = publication.get()
        request = Publication(client, origin=asked_by.origin if asked_by else None, at_once=True, loop=loop)
        new = self.new_task(client, arguments, id=id, origin=request.origin)
        handle = self.handle(new.id, client, stored=False)
        single = Single(new, handle, request)
        joining = Joining(single, single.released, independent=True)
        join(self.session, joining, request)
        if asked_by:
            asked_by.used = True
            asked_by.watch(joining)
        return handle

    def notice(self, failed: FailedTask, client: Client) -> NewTask | None:
        """The task that tells of a final failure, where ``on_failure`` is a task function."""
        told = self.on_failure
        if not isinstance(told, TaskFunction):
            return None
        return told.new_task(client, told.codec.dump((failed,), {}))

    def fire(self, client: Client) -> NewTask:
        """The task of one fire of its schedule."""
        return self.new_task(client, self.codec.dump((), {}), origin=f"schedule {self.schedule}")

    def handle(self, id: str, client: Client, *, stored: bool = True) -> TaskHandle[R]:
        return TaskHandle(id, client, cast(Callable[[str | None], R], self.results.load), stored=stored)


class Single:
    """One call that belongs to no request, until its session commits."""

    chained = False

    def __init__(self, new: NewTask, handle: TaskHandle[Any], request: Publication) -> None:
        self._new = new
        self._handle = handle
        self._request = request
        self.id = new.id
        self.name = new.name
        self.mark_stored = handle.mark_stored
        self.mark_not_stored = handle.mark_not_stored

    def new_task(self, client: Client, *, origin: str | None, after: str | None, held: bool) -> NewTask:
        return self._new

    def released(self) -> None:
        self._request.soon(self._store)

    async def _store(self) -> None:
        try:
            await self._request.store([self._new])
        except EngineError as error:
            telemetry.lost_after_commit(error, [self.name])
        else:
            self.mark_stored()


class AsyncTaskFunction(TaskFunction[P, Coroutine[Any, Any, R], R]):
    """A task function that is ``async def``, and looks so to Starlette and FastAPI."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        refuse_native(self, self.name, here())
        return await self.function(*args, **kwargs)

    @property
    def is_async(self) -> bool:
        return True


class Registry:
    """The task functions of this process, by name: rows name functions, and only these are ever run."""

    def __init__(self) -> None:
        self._functions: dict[str, TaskFunction[Any, Any, Any]] = {}
        self._names: frozenset[str] = frozenset()
        self._limits: dict[str, Limit] = {}

    def add(self, function: TaskFunction[Any, Any, Any]) -> None:
        """Add a function; the same place may come again (reload, ``__main__`` and its module). Raises DuplicateName."""
        known = self._functions.get(function.name)
        if known is not None and known.place != function.place:
            raise DuplicateName(
                f"two task functions are named {function.name!r}: {_shown(known)} and {_shown(function)}. "
                'Give one of them another name: @task(name="...")'
            )
        self._functions[function.name] = function
        self._names = frozenset(self._functions)
        self._limits = {name: known.limit for name, known in self._functions.items() if known.limit}

    def limits(self) -> dict[str, Limit]:
        return self._limits

    def get(self, name: str) -> TaskFunction[Any, Any, Any]:
        try:
            return self._functions[name]
        except KeyError:
            raise UnknownFunction(name) from None

    def names(self) -> frozenset[str]:
        return self._names

    def __iter__(self) -> Iterator[TaskFunction[Any, Any, Any]]:
        return iter(tuple(self._functions.values()))


registry = Registry()


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> TaskFunction[P, Coroutine[object, None, R], R]: ...
@overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R, R]: ...
@overload
def task(**settings: Unpack[TaskSettings]) -> "TaskDecorator": ...
def task(function: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
    """Make a function's calls survive: they are stored before the response leaves, and run whatever dies.

    ``@task`` or ``@task(retries=3, timeout=60, queue="mail")``; the options are those of ``TaskSettings``.
    Arguments are stored as JSON by the types of the signature. Parameters with ``Depends`` are filled when it runs.
    An ``UploadFile``, or a list of them, is stored with its content, and open at its beginning in each attempt.
    Raises InvalidTaskFunction for what another process could not call: lambdas, methods, closures, generators.
    """
    decorator = TaskDecorator(settings)
    return decorator if function is None else decorator(function)


class TaskDecorator:
    """What ``@task(...)`` applies to the function below it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._name = settings.pop("name", None)
        self._on_failure = settings.pop("on_failure", None)
        if self._on_failure is not None and not callable(self._on_failure):
            raise InvalidOption(f"on_failure={self._on_failure!r}: give a function, which is told of the failure")
        timing = {name: settings.pop(name) for name in ("cron", "tz", "every", "missed") if name in settings}
        self._schedule, self._missed = wanted(**timing)
        self._settings = TaskOptions().changed(settings)
        if self._schedule and self._settings.run_at:
            raise InvalidOption("run_at is one instant, and a schedule has many: leave run_at out")

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> TaskFunction[P, Coroutine[object, None, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> TaskFunction[P, R, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Any:
        _check_callable(function)
        name = check_name("task name", function.__name__ if self._name is None else self._name)
        kind = AsyncTaskFunction if inspect.iscoroutinefunction(function) else TaskFunction
        made: TaskFunction[Any, Any, Any] = kind(
            function, name, self._settings, self._on_failure, schedule=self._schedule, missed=self._missed
        )
        with suppress(UnresolvedAnnotation):  # a type defined further down: `prepare` comes again at the start
            prepare(made)
        registry.add(made)
        return made


def prepare(function: TaskFunction[Any, Any, Any]) -> None:
    """Build what its calls need, so that a mistake in its signature shows now and not at the first call."""
    _ = function.codec, function.results
    if function.schedule:
        _check_scheduled(function)


def _check_scheduled(function: TaskFunction[Any, Any, Any]) -> None:
    """Raise InvalidTaskFunction for what a schedule cannot call, for it has no arguments to give."""
    try:
        function.codec.dump((), {})
    except TypeError as error:
        raise InvalidTaskFunction(
            f"@task on {function.__qualname__}: a schedule calls it without arguments, "
            f"and it is {str(error).rpartition('() ')[2]}: give its parameters defaults, or fill them by Depends"
        ) from None


def _check_callable(function: Callable[..., Any]) -> None:
    """Raise InvalidTaskFunction for what has no name by which another process would find the same code."""
    found = _unstorable(function)
    if found:
        what = getattr(function, "__qualname__", repr(function))
        raise InvalidTaskFunction(f"@task on {what}: {found}")


def _unstorable(function: Any) -> str | None:
    if inspect.ismethod(function) or isinstance(function, (staticmethod, classmethod)) or _in_a_class(function):
        return "a method cannot be stored. Make it a function of the module that takes what it needs as arguments"
    if not inspect.isfunction(function):
        return f"{type(function).__name__} is no function. Decorate a `def` or `async def`"
    if function.__name__ == "<lambda>":
        return "a lambda has no name to be found by. Make it a `def`"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "a generator does nothing when it is called. Use a function that returns"
    if function.__closure__ and "<locals>" in function.__qualname__:
        names = ", ".join(function.__code__.co_freevars)
        return (
            f"it is a closure over {names}, which no other process has. "
            "Make it a function of the module, and pass what it needs as arguments or by Depends"
        )
    return None


def _in_a_class(function: Any) -> bool:
    """Whether it is a method to be: a function in the body of a class, with the object as its first parameter."""
    parent = getattr(function, "__qualname__", "").rpartition(".")[0]
    if not parent or parent.endswith("<locals>") or not inspect.isfunction(function):
        return False
    return function.__code__.co_varnames[: function.__code__.co_argcount][:1] in (("self",), ("cls",))


def _mark_coroutine_function(function: Any) -> None:
    """Have `iscoroutinefunction` say yes, which FastAPI before 0.122 asks of an endpoint that is an object."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # its only way there


def _place(function: Callable[..., Any]) -> tuple[str, str]:
    """Where a function is written: the same for ``__main__`` and for the module of that file."""
    code = inspect.unwrap(function).__code__
    return str(Path(code.co_filename).resolve()), function.__qualname__


def _shown(function: TaskFunction[Any, Any, Any]) -> str:
    file, qualname = function.place
    return f"{qualname} ({file}, line {inspect.unwrap(function.function).__code__.co_firstlineno})"
