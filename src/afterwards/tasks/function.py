"""Task functions: the objects that ``@task`` returns."""

import asyncio
import copy
import inspect
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, Unpack, cast

from typing_extensions import ParamSpec

from afterwards.client.client import Client
from afterwards.client.connections import check_connection, check_sync_connection, store_async
from afterwards.client.handle import TaskHandle
from afterwards.client.installations import the_client
from afterwards.client.request import origin, request_tasks
from afterwards.client.sqlalchemy import check_session
from afterwards.client.uploads import delete_unused, files_stored
from afterwards.core.errors import InvalidOption, InvalidTaskFunction, NotInjected
from afterwards.core.injected import INJECTED
from afterwards.core.keywords import (
    AS_CONFIGURED,
    AsConfigured,
    DatabaseConnection,
    DatabaseSession,
    OneCallSettings,
    RunIn,
    check_call_names,
)
from afterwards.core.limits import Limit
from afterwards.core.options import TaskOptions
from afterwards.core.schedule import Missed, Schedule
from afterwards.core.serialization.arguments import Codec, ResultCodec
from afterwards.core.task import FailedTask
from afterwards.execution.dependency_plan import Plan, plan
from afterwards.tasks.call import CallBuilder
from afterwards.tasks.session_enqueue import join_session, store_files
from afterwards.tasks.wrong_import import here, refuse_native, tell_of_wrapper

P = ParamSpec("P")
T = TypeVar("T")  # the result of a direct call: for `async def`, a coroutine
R = TypeVar("R")  # the function's awaited result


class TaskFunction(Generic[P, T, R]):
    """A function whose calls can be stored, made by ``@task``. Calling it directly is a plain call."""

    run_in = RunIn.THREAD
    is_async = False

    def __init__(
        self,
        function: Callable[P, T],
        name: str,
        settings: TaskOptions,
        on_failure: Callable[[FailedTask], Any] | None = None,
        *,
        schedule: Schedule | None = None,
        missed: Missed = Missed.LATEST,
        limit: Limit | None = None,
        aliases: Sequence[str] = (),
    ) -> None:
        self.function = function
        self.name = name
        self.settings = settings
        self.base = settings  # the function's own settings, if `settings` are those of one call
        self.session: DatabaseSession | AsConfigured | None = AS_CONFIGURED  # of one call; never stored
        self.connection: DatabaseConnection | AsConfigured | None = AS_CONFIGURED  # of one call; never stored
        self.on_failure = on_failure
        self.limit = limit
        self.aliases = aliases
        self.schedule = schedule
        self.missed = missed
        self.place = _place(function)
        self._injected = _left_to_dependencies(function)
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        if self.is_async:
            _mark_coroutine_function(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        refuse_native(self, self.name, here())
        tell_of_wrapper(self, self.name, args, kwargs)
        if self._injected:
            self._refuse_unfilled(args, kwargs)
        return self.function(*args, **kwargs)

    def _refuse_unfilled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise NotInjected for a direct call without an argument that a dependency provides to tasks."""
        given = inspect.signature(self.function).bind(*args, **kwargs).arguments
        for name in self._injected:
            if given.get(name, INJECTED) is INJECTED:
                raise NotInjected(f'{self.name}() was called without "{name}", which a dependency fills')

    def __set_name__(self, owner: type, name: str) -> None:
        raise InvalidTaskFunction(
            f"@task on {owner.__qualname__}.{name}: it is a method, and its object is not stored: "
            "write a function at module level, and pass what it needs"
        )

    def __repr__(self) -> str:
        return f"<task function {self.name!r} of {self.__module__}>"

    @property
    def identity(self) -> str:
        """The name that stays the same after a renaming: the first alias, else the name."""
        return self.aliases[0] if self.aliases else self.name

    @cached_property
    def plan(self) -> Plan:
        """The plan of its dependencies. Raises if one of them needs HTTP."""
        return plan(self.function, name=self.name)

    @cached_property
    def codec(self) -> Codec:
        """The codec of its arguments. Raises if a type cannot be written as JSON."""
        return Codec(self.function, name=self.name, injected=self.plan.injected)

    @cached_property
    def results(self) -> ResultCodec:
        return ResultCodec(self.function, name=self.name)

    @cached_property
    def calls(self) -> CallBuilder:
        """The builder of its calls."""
        return CallBuilder(
            name=self.name,
            identity=self.identity,
            codec=self.codec,
            settings=self.settings,
            base=self.base,
            limited=self.limit is not None,
            function=self.function,
            secrets=(*self.codec.secrets, *self.results.secrets),
        )

    @cached_property
    def _result_of(self) -> Callable[[str | None], R]:
        """The reader of stored results, kept for all handles."""
        return cast(Callable[[str | None], R], self.results.load)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """Store a call now, to start as soon as a worker is free. It is durable when this returns.

        It belongs to no request: it waits for no call added before and for no request to end. With
        ``options(session=...)`` it is stored by the next commit of that session instead, and with
        ``options(connection=...)`` in the open transaction of that connection: both commit or roll back together.
        A call on a connection that is cancelled, as by a timeout, leaves a transaction that can only be rolled back.
        Raises NotInstalled, EngineUnavailable, UnstorableArgument, TooLarge.
        """
        return await self.enqueue_in(the_client(f"task {self.name!r}"), args, kwargs)

    async def enqueue_in(self, client: Client, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskHandle[R]:
        """Store a call now, in this installation."""
        asked_by = request_tasks.get()
        if asked_by and not asked_by.answered:
            client.must_work()
        calls, id = self.calls, client.new_id()
        written = calls.write(args, kwargs, id, client)
        new = calls.new_task(client, written, id=id, after=calls.stored_after(), origin=origin())
        uploads = [written.uploads] if written.uploads else []
        async with files_stored([new], uploads, client):
            if self.has_session:
                handle = self.handle(id, client, stored=False)
                join_session(self.session, calls, written, handle, client, loop=asyncio.get_running_loop())
                return handle
            if asked_by:
                asked_by.used = True
            inserted = await store_async(self.connection, [new], client) if self.has_connection else None
            [stored] = await client.enqueue_now([new]) if inserted is None else inserted
        await delete_unused(uploads, [stored], client)
        return self.handle(stored.id, client)

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """Store a call now, from a thread or a script. Raises as ``enqueue``; RuntimeError on a running event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self.has_connection:
                instead = f"await {self.name}.options(connection=...).enqueue(...)"
                check_sync_connection(self.connection, instead)
            return self._join_sync(args, kwargs) if self.has_session else asyncio.run(self.enqueue(*args, **kwargs))
        raise RuntimeError(
            f"{self.name}.enqueue_sync() was called on a running event loop, which it would block: "
            f"write `await {self.name}.enqueue(...)` in async code"
        )

    def _join_sync(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskHandle[R]:
        """Register a call with a session used by this thread: the next commit stores it."""
        client = the_client(f"task {self.name!r}")
        handle = self.handle(client.new_id(), client, stored=False)
        written = self.calls.write(args, kwargs, handle.id, client)
        if written.uploads:
            asyncio.run(store_files(self.calls, written, handle.id, client))
        join_session(self.session, self.calls, written, handle, client, loop=None)
        return handle

    def options(self, **settings: Unpack[OneCallSettings]) -> Self:
        """Return a copy whose calls have other options: ``background_tasks.add_task(f.options(delay=60), x)``."""
        changed = copy.copy(self)
        check_call_names(settings)
        if settings.get("session") is not None and settings.get("connection") is not None:
            raise InvalidOption("session and connection are both given: give the one whose transaction is to be used")
        if "session" in settings:
            changed.session = settings.pop("session")
            if changed.session is not None:
                check_session(changed.session)
                changed.connection = None
        if "connection" in settings:
            changed.connection = settings.pop("connection")
            if changed.connection is not None:
                check_connection(changed.connection)
                changed.session = None
        changed.settings = self.settings.called_with(settings)
        changed.__dict__.pop("calls", None)  # cached for the original options
        return changed

    @property
    def has_session(self) -> bool:
        return self.session not in (None, AS_CONFIGURED)

    @property
    def has_connection(self) -> bool:
        return self.connection not in (None, AS_CONFIGURED)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> "Call[R]":
        """Return a call that is not stored yet, for ``chain`` and ``tasks.enqueue_many``."""
        return Call(self, args, kwargs)

    def handle(self, id: str, client: Client, *, stored: bool = True) -> TaskHandle[R]:
        return TaskHandle(id, client, self._result_of, name=self.name, stored=stored)


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """A call that is not stored yet."""

    function: TaskFunction[Any, Any, R]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class AsyncTaskFunction(TaskFunction[P, Coroutine[Any, Any, R], R]):
    """A task function that is ``async def``, and is recognised as such by Starlette and FastAPI."""

    is_async = True

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        refuse_native(self, self.name, here())
        tell_of_wrapper(self, self.name, args, kwargs)
        if self._injected:
            self._refuse_unfilled(args, kwargs)
        return await self.function(*args, **kwargs)


def _mark_coroutine_function(function: Any) -> None:
    """Make `iscoroutinefunction` return True, which FastAPI before 0.122 asks of an endpoint that is an object."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # no other way


def _left_to_dependencies(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the parameters whose default is ``injected()``."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.default is INJECTED)


def _place(function: Callable[..., Any]) -> tuple[str, str]:
    """Return file and qualified name of a function: the same for ``__main__`` and for the module of that file."""
    code = inspect.unwrap(function).__code__
    return str(Path(code.co_filename).resolve()), function.__qualname__
