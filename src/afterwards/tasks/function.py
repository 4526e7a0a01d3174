"""Task functions, and how one call of them is stored."""

import asyncio
import copy
import inspect
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, Self, TypeVar, Unpack, cast

from typing_extensions import ParamSpec

from afterwards.client.client import Client
from afterwards.client.handle import TaskHandle
from afterwards.client.installations import the_client
from afterwards.client.request import Publication, origin, publication
from afterwards.client.sqlalchemy import check_session, join_alone
from afterwards.client.uploads import Uploads, delete_files, files_stored
from afterwards.core.called import called_already, function_of
from afterwards.core.errors import InvalidTaskFunction, NotAFunction, NotInjected, NotStored, UnstorableArgument
from afterwards.core.fast_frozen import draft_of, frozen
from afterwards.core.injected import INJECTED
from afterwards.core.keys import Bound, key_of
from afterwards.core.limits import ALL, UNLIMITED, Limit
from afterwards.core.options import (
    AS_CONFIGURED,
    AsConfigured,
    DatabaseSession,
    OneCallSettings,
    RunIn,
    TaskOptions,
    check_call_names,
)
from afterwards.core.schedule import Missed, Schedule
from afterwards.core.serialization.arguments import Codec, ResultCodec
from afterwards.core.task import FailedTask, NewTask
from afterwards.execution.dependency_plan import Plan, plan
from afterwards.execution.propagation import captured
from afterwards.tasks.wrong_import import here, refuse_native, tell_of_wrapper

P = ParamSpec("P")
T = TypeVar("T")  # what a direct call gives: for `async def`, a coroutine
R = TypeVar("R")  # what the function returns in the end


_Draft = draft_of(NewTask)


class TaskFunction(Generic[P, T, R]):
    """A function whose calls survive: what ``@task`` makes. Calling it directly is a plain call."""

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
        self.base = settings  # the function's own, where `settings` are those of one call
        self.session: DatabaseSession | AsConfigured | None = AS_CONFIGURED  # of one call; never stored
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
        tell_of_wrapper(self.name, args, kwargs)
        if self._injected:
            self._refuse_unfilled(args, kwargs)
        return self.function(*args, **kwargs)

    def _refuse_unfilled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise NotInjected for a direct call without what a dependency gives to a task."""
        given = inspect.signature(self.function).bind(*args, **kwargs).arguments
        for name in self._injected:
            if given.get(name, INJECTED) is INJECTED:
                raise NotInjected(f'{self.name}() was called without "{name}", which a dependency fills')

    def __set_name__(self, owner: type, name: str) -> None:
        raise InvalidTaskFunction(
            f"@task on {owner.__qualname__}.{name}: a method cannot be stored, for its object is gone by the time it "
            "runs. Make it a function of the module that takes what it needs as arguments"
        )

    def __repr__(self) -> str:
        return f"<task function {self.name!r} of {self.__module__}>"

    @property
    def identity(self) -> str:
        """What it is known by however it is renamed: its first name, of those that it is said to have had."""
        return self.aliases[0] if self.aliases else self.name

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

    @cached_property
    def _result_of(self) -> Callable[[str | None], R]:
        """Reads a stored result. Kept, for each handle has it."""
        return cast(Callable[[str | None], R], self.results.load)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """Store a call now, to start as soon as a worker is free; when this returns, it survives.

        Belongs to no request: it waits for nothing that was added before, and for no request to end. With
        ``options(session=...)`` it is stored by the next commit of that session instead.
        Raises NotInstalled, EngineUnavailable, UnstorableArgument, TooLarge.
        """
        client = the_client(f"task {self.name!r}")
        asked_by = publication.get()
        if asked_by and not asked_by.answered:
            client.must_work()
        id = client.new_id()
        written = self.written(args, kwargs, id, client)
        new = self.new_task(client, written, id=id, after=self.stored_after(), origin=origin())
        async with files_stored([new], [written.uploads] if written.uploads else [], client):
            if self.has_session:
                return self._join(client, written, id, asyncio.get_running_loop())
            if asked_by:
                asked_by.used = True
            [stored] = await client.enqueue_now([new])
        return self.handle(stored.id, client)

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """As ``enqueue``, for threads and scripts. Raises RuntimeError on a running event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self.has_session:
                client = the_client(f"task {self.name!r}")
                id = client.new_id()
                written = self.written(args, kwargs, id, client)
                if written.uploads:
                    asyncio.run(self._store_files(client, written, id))
                return self._join(client, written, id, None)
            return asyncio.run(self.enqueue(*args, **kwargs))
        raise RuntimeError(
            f"{self.name}.enqueue_sync() was called on a running event loop, which it would block: "
            f"write `await {self.name}.enqueue(...)` in async code"
        )

    def options(self, **settings: Unpack[OneCallSettings]) -> Self:
        """A copy whose calls have other options: ``background_tasks.add_task(f.options(delay=60), x)``."""
        changed = copy.copy(self)
        check_call_names(settings)
        if "session" in settings:
            changed.session = settings.pop("session")
            if changed.session is not None:
                check_session(changed.session)
        changed.settings = self.settings.called_with(settings)
        return changed

    @property
    def has_session(self) -> bool:
        return self.session not in (None, AS_CONFIGURED)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> "Call[R]":
        """A call that is not stored yet, for ``chain``."""
        return Call(self, args, kwargs)

    def written(self, args: tuple[Any, ...], kwargs: dict[str, Any], id: str, client: Client) -> "Written":
        """A call as it is stored: its arguments, the files among them, and what follows from them.

        Raises UnstorableArgument, TooLarge, InvalidKey.
        """
        uploads = Uploads(self.name, id, client) if self.codec.files else None
        try:
            arguments = self.codec.dump(args, kwargs, refer=uploads.refer if uploads else None)
        except UnstorableArgument:
            self._refuse_own_call(args)
            raise
        context = captured(client.options.propagate)
        if not self.limit and not self.settings.keyed:  # as most often
            return Written(arguments, uploads, context)
        made = self._keys(self.codec.bound(args, kwargs, arguments)) if self.settings.keyed else {}
        unique = made.get("unique")
        return Written(
            arguments,
            uploads,
            context,
            unique_key=unique and f"{self.identity}/{unique}",
            idempotency_key=made.get("idempotency_key"),
            limit_key=made.get("concurrency_key", ALL) if self.limit else UNLIMITED,
        )

    def _keys(self, call: Bound) -> dict[str, str]:
        return {option: key_of(self.name, option, key, call) for option, key in self.settings.key_makers() if key}

    def _refuse_own_call(self, args: tuple[Any, ...]) -> None:
        """Raise NotAFunction for ``f.enqueue(f(1))``, where the argument is what a call of this function gave."""
        if args and isinstance(args[0], Coroutine) and function_of(args[0]) is self:
            raise NotAFunction(
                f'task "{self.name}": {called_already(args[0], "{0}.enqueue({0}(1))", "{0}.enqueue(1)")}'
            )

    def own_key(self, key: str | None) -> str | None:
        """An idempotency key as it is stored: two functions may have the same."""
        return key and f"{self.identity}/{key}"

    def stored_after(self) -> str | None:
        """The task that it must come after, as ``options(after=...)`` says. Raises NotStored."""
        after = self.settings.after
        if after is not None and not after.stored:
            raise NotStored(after.id, ", and nothing can come after it")
        return None if after is None else after.id

    def new_task(
        self,
        client: Client,
        written: "Written",
        *,
        id: str | None = None,
        origin: str | None = None,
        after: str | None = None,
        chained: bool = False,
        held: bool = False,
        limited: bool = True,
        key: str | None = None,
    ) -> NewTask:
        """A call as it will be stored; ``limited``: a full queue refuses it. ``key`` is that of its request."""
        settings = self.settings
        draft = _Draft(
            id=id or client.new_id(),
            name=self.name,
            arguments=written.arguments,
            queue=settings.queue,
            priority=settings.priority,
            overrides=None if settings is self.base else settings.overrides(self.base),
            retention=client.options.retention if settings.retention is None else settings.retention,
            origin=origin,
            after=after,
            chained=chained,
            held=held,
            wait=settings.delay or timedelta(),
            run_at=settings.run_at,
            expires=settings.expires,
            unique_key=written.unique_key,
            idempotency_key=self.own_key(own) if (own := written.idempotency_key or key) else None,
            limit_key=written.limit_key,
            rerun_after_crash=settings.rerun_after_crash,
            context=written.context,
            max_queued=client.options.most_queued(settings.queue) if limited and client.options.max_queued else None,
        )
        return frozen(draft, NewTask)

    async def _store_files(self, client: Client, written: "Written", id: str) -> None:
        """Store the files of a call whose session commits later."""
        new = self.new_task(client, written, id=id, after=self.stored_after())
        async with files_stored([new], [written.uploads] if written.uploads else [], client):
            pass

    def _join(
        self, client: Client, written: "Written", id: str, loop: asyncio.AbstractEventLoop | None
    ) -> TaskHandle[R]:
        """Have a call stored with the next commit of its session."""
        asked_by = publication.get()
        request = Publication(client, origin=origin(), at_once=True, loop=loop)
        new = self.new_task(client, written, id=id, after=self.stored_after(), origin=request.origin)
        handle = self.handle(new.id, client, stored=False)
        joining = join_alone(self.session, new, handle, request)
        if written.uploads:
            joining.clean_up = partial(delete_files, [written.uploads], client)
        if asked_by:
            asked_by.used = True
            asked_by.watch(joining)
        return handle

    def notice(self, failed: FailedTask, client: Client) -> NewTask | None:
        """The task that tells of a final failure, where ``on_failure`` is a task function."""
        told = self.on_failure
        if not isinstance(told, TaskFunction):
            return None
        id = client.new_id()
        return told.new_task(client, told.written((failed,), {}, id, client), id=id, limited=False)

    def fire(self, client: Client) -> NewTask:
        """The task of one fire of its schedule."""
        id = client.new_id()
        written = self.written((), {}, id, client)
        return self.new_task(client, written, id=id, origin=f"schedule {self.schedule}", limited=False)

    def handle(self, id: str, client: Client, *, stored: bool = True) -> TaskHandle[R]:
        return TaskHandle(id, client, self._result_of, stored=stored)


class Written(NamedTuple):
    """A call as it is stored: its arguments as JSON, the files among them, its context, and its keys."""

    arguments: str
    uploads: Uploads | None = None
    context: str | None = None
    unique_key: str | None = None
    idempotency_key: str | None = None
    limit_key: str = UNLIMITED


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """A call that is not stored yet."""

    function: TaskFunction[Any, Any, R]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class AsyncTaskFunction(TaskFunction[P, Coroutine[Any, Any, R], R]):
    """A task function that is ``async def``, and looks so to Starlette and FastAPI."""

    is_async = True

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        refuse_native(self, self.name, here())
        tell_of_wrapper(self.name, args, kwargs)
        if self._injected:
            self._refuse_unfilled(args, kwargs)
        return await self.function(*args, **kwargs)


def _mark_coroutine_function(function: Any) -> None:
    """Have `iscoroutinefunction` say yes, which FastAPI before 0.122 asks of an endpoint that is an object."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # its only way there


def _left_to_dependencies(function: Callable[..., Any]) -> tuple[str, ...]:
    """The parameters whose default is ``injected()``."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.default is INJECTED)


def _place(function: Callable[..., Any]) -> tuple[str, str]:
    """Where a function is written: the same for ``__main__`` and for the module of that file."""
    code = inspect.unwrap(function).__code__
    return str(Path(code.co_filename).resolve()), function.__qualname__
