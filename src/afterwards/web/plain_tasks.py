"""Run plain functions in this process after the response, as FastAPI does, but not in the endpoints' threads."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from contextvars import Context, ContextVar
from datetime import UTC, datetime
from functools import partial
from inspect import signature
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from pydantic import SecretBytes, SecretStr
from starlette.background import BackgroundTask
from typing_extensions import ParamSpec

from afterwards import telemetry
from afterwards.client.client import Client
from afterwards.client.request import RequestTasks, request_tasks
from afterwards.core.errors import EngineError
from afterwards.core.names import NAME
from afterwards.core.options import Options
from afterwards.core.redaction import Redactor, says_secret
from afterwards.core.routing import PlainRun
from afterwards.core.task import Failure, FailureKind, NewTask
from afterwards.core.text import frames_of, said_by, shortened, type_name, written
from afterwards.execution.awaitables import awaited, done, left_undone, undone_within
from afterwards.tasks.wrapped import is_task_function
from afterwards.tasks.wrong_import import PlainCall, plain_call, tell_of_call

P = ParamSpec("P")


_within_another: ContextVar[bool] = ContextVar("afterwards_within_a_plain_task", default=False)
"""True inside a running plain task: middleware wraps a response's background in new tasks."""


class PlainTask(BackgroundTask):
    """One call of a plain function. When it fails, the installation records it, and the exception propagates."""

    def __init__(self, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        super().__init__(func, *args, **kwargs)
        self.started = False
        self._request_tasks = request_tasks.get()

    async def __call__(self) -> None:
        self.started = True
        client = self._request_tasks.client if self._request_tasks else None
        try:
            async with AsyncExitStack() as stack:
                limits = _limits(client)
                if limits.tasks and not _within_another.get():
                    await stack.enter_async_context(limits.tasks)
                    stack.callback(_within_another.reset, _within_another.set(True))
                if client is not None:
                    stack.enter_context(client.plain_runs.running(self._run_of(client)))
                await self._run(limits.threads)
        except Exception as error:
            if self._request_tasks and self._request_tasks.recorded is not error:
                self._request_tasks.recorded = error
                hide = Redactor(secrets := _secrets(self.func, self.args, self.kwargs), None, secrets)
                await _record(self._request_tasks, self.func, error, hide)
            raise

    def _run_of(self, client: Client) -> PlainRun:
        origin = self._request_tasks.origin if self._request_tasks else None
        return PlainRun(_name(self.func), client.now(), origin)

    async def _run(self, threads: CapacityLimiter) -> None:
        call = PlainCall(self.func, self.args, self.kwargs)
        if type(self.func) is not FunctionType:  # a function belongs to no runner
            _tell_of_runner(call)
        before = plain_call.set(call)
        try:
            if self.is_async:
                result = await self.func(*self.args, **self.kwargs)
            else:
                result = await anyio.to_thread.run_sync(partial(self.func, *self.args, **self.kwargs), limiter=threads)
            if result is not None:
                await self._finish(result)
        finally:
            plain_call.reset(before)

    async def _finish(self, result: Any) -> None:
        """Await the function's result, which FastAPI discards. Only log a generator, or awaitables in a container."""
        if not done(result) and left_undone(result) is None:
            await awaited(result)
        elif (left := left_undone(result) or undone_within(result)) is not None:
            telemetry.left_undone(_name(self.func), left)


_RUNNERS = (Context, asyncio.AbstractEventLoop, Executor)


def _tell_of_runner(call: PlainCall) -> None:
    """Warn of a method that calls a given task function in another context, where the task function cannot notice."""
    func, args, _ = call.opened()
    if isinstance(func, (MethodType, BuiltinMethodType)) and isinstance(func.__self__, _RUNNERS):
        for one in filter(is_task_function, args):
            tell_of_call(one.name, func)


class Limits:
    """Limits of an installation's plain tasks that run at once on one event loop."""

    def __init__(self, options: Options) -> None:
        self.threads = CapacityLimiter(options.threads)
        self.tasks = CapacityLimiter(options.concurrency) if options.concurrency else None


_limits_here: RunVar[dict[Client | None, Limits]] = RunVar("afterwards_plain_limits")


def _limits(client: Client | None) -> Limits:
    """Return the limits of an installation, or of plain functions without one, on the running event loop."""
    try:
        known = _limits_here.get()
    except LookupError:
        known = {}
        _limits_here.set(known)
    if client not in known:
        known[client] = Limits(client.options if client else Options())
    return known[client]


async def _record(asked_by: RequestTasks, function: Callable[..., Any], error: Exception, hide: Redactor) -> None:
    """Record a plain function's failure with those of tasks; without its arguments, which have no schema."""
    client = asked_by.client
    failure = Failure(
        attempt=1,
        at=datetime.now(UTC),
        worker="",
        kind=FailureKind.RAISED,
        type=type_name(error),
        message=said_by(error),
        traceback=shortened(written(error, frames_of(error))),
    )
    record = NewTask(
        id=client.new_id(),
        name=_name(function),
        arguments="{}",
        retention=client.options.retention,
        origin=asked_by.origin,
        failure=hide.failure(failure),
    )
    asked_by.used = True
    try:
        await client.enqueue([record])
    except EngineError as trouble:
        telemetry.not_recorded(record.name, trouble)


def _secrets(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of a plain call's secrets, by parameter. They are not stored, so nothing can hide them later."""
    try:
        given = {**signature(function).bind_partial(*args, **kwargs).arguments, **kwargs}
    except (TypeError, ValueError):  # written in C, or called with other arguments
        given = {**kwargs}
    return {name: text for name, value in given.items() if (text := _secret_text(name, value)) is not None}


def _secret_text(name: str, value: Any) -> str | None:
    match value:
        case SecretStr() | SecretBytes():
            return _secret_text(name="secret", value=value.get_secret_value())
        case str() if says_secret(name):
            return value
        case bytes() if says_secret(name):
            return value.decode(errors="replace")
    return None


def _name(function: Callable[..., Any]) -> str:
    """Return the name under which a plain function is listed; it need not have a name of its own."""
    name = getattr(function, "__name__", type(function).__name__)
    return name if NAME.fullmatch(name) else "plain-function"
