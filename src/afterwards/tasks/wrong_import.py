"""Detect a task function that is called by a background task which stores nothing.

Such a task is in an object that FastAPI did not inject, or in an application without an installation; or it calls a
wrapper of the task function.
"""

import asyncio
import logging
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from types import FrameType, FunctionType
from typing import Any, NamedTuple, TypeGuard

import anyio.from_thread

from afterwards import environment, telemetry
from afterwards.client.request import request_tasks
from afterwards.core.errors import NativeBackgroundTasks

_STARLETTE = "starlette.background"

LAYERS = 20
"""Maximum frames and decorators between Starlette and a task function."""


def refuse_native(function: Any, name: str, caller: FrameType | None) -> None:
    """Raise in development, warn once elsewhere, if Starlette's class is the ``caller``: the task is not durable."""
    if not _is_native(function, caller):
        return
    remedy = (
        "this application has no Afterwards: write `tasks = Afterwards(app)` after `app = FastAPI()`"
        if request_tasks.get() is None
        else "add it to the BackgroundTasks that FastAPI injects, or to `afterwards.BackgroundTasks()`"
    )
    message = (
        f"task function {name!r} was added to FastAPI's or Starlette's own background tasks, which do not store it, so "
        f"it is lost if the process dies: {remedy}"
    )
    if environment.development():
        raise NativeBackgroundTasks(message)
    telemetry.once(f"native {name}", logging.WARNING, message)


class PlainCall(NamedTuple):
    """The call of a plain function that runs as a background task."""

    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def opened(self) -> "PlainCall":
        """Return the call of a partial as a call of what is inside."""
        func: Any = self.func
        args, kwargs = self.args, self.kwargs
        while isinstance(func, partial):
            func, args, kwargs = func.func, (*func.args, *args), {**func.keywords, **kwargs}
        return PlainCall(func, args, kwargs)


plain_call: ContextVar[PlainCall | None] = ContextVar("afterwards_plain_call", default=None)
"""The plain background task that is running."""


def tell_of_wrapper(function: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Warn once if a plain background task only passes its arguments on to a task function, or was given it to call."""
    plain = plain_call.get()
    if plain is not None and (_was_given(plain, function) or _passes_on(plain, args, kwargs)):
        tell_of_call(name, plain.func)


def tell_of_call(name: str, wrapper: Any) -> None:
    """Warn once of a wrapper, or another function that calls what it is given, that calls a task function."""
    wrapper = getattr(wrapper, "__qualname__", None) or type(wrapper).__qualname__
    telemetry.once(
        f"wrapped {name}",
        logging.WARNING,
        f"task function {name!r} was called by {wrapper}, which was added as a plain function, so the call is not "
        f"stored, and is lost if the process dies: write `background_tasks.add_task({name}, ...)`, and @task above "
        "all other decorators",
    )


def _was_given(plain: PlainCall, function: Any) -> bool:
    """Return whether a task function is an argument of a plain call, or a default."""
    func, given, named = plain.opened()
    defaults: Iterable[Any] = ()
    if isinstance(func, FunctionType):
        defaults = (*(func.__defaults__ or ()), *(func.__kwdefaults__ or {}).values())
    return any(one is function for one in (*given, *named.values(), *defaults))


def _passes_on(plain: PlainCall, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a wrapper passes on its own arguments. A named function may call anything it wants."""
    func, given, named = plain.opened()
    if isinstance(func, FunctionType) and not func.__closure__:
        return func.__name__ == "<lambda>"
    same = len(given) == len(args) and all(one is other for one, other in zip(given, args, strict=True))
    return same and bool(args or kwargs) and named == kwargs


def here() -> FrameType:
    """Return the frame of the caller's caller."""
    return sys._getframe(2)


def _is_native(function: Any, caller: FrameType | None) -> bool:
    if _module(caller) == _STARLETTE:
        return True
    for _ in range(LAYERS):  # decorators of the function may be in between
        if caller is None:
            return False
        if _is_starlettes(caller):
            return _runs_in(caller, function)
        # In an anyio thread the stack does not show who awaits the result: ask the event loop.
        if _module(caller).startswith("anyio."):
            with suppress(RuntimeError):  # not such a thread, but an event loop that anyio runs
                return anyio.from_thread.run_sync(_awaited_by_starlette, function)
            return False
        caller = caller.f_back
    return False


def _module(frame: FrameType | None) -> str:
    name = frame.f_globals.get("__name__") if frame else None
    return name if isinstance(name, str) else ""


def _runs_in(frame: FrameType, function: Any) -> bool:
    """Return whether Starlette's background task in this frame calls this function itself."""
    return _whole(getattr(frame.f_locals.get("self"), "func", None)) is function


def _awaited_by_starlette(function: Any) -> bool:
    return any(_runs(function, task.get_coro()) for task in asyncio.all_tasks())


def _runs(function: Any, awaited: Any) -> bool:
    """Return whether a coroutine in this chain of awaits is Starlette's, running this function."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None)
        if _is_starlettes(frame) and _runs_in(frame, function):
            return True
        awaited = getattr(awaited, "cr_await", None)
    return False


def _whole(func: Any) -> Any:
    """Return the innermost function of a `partial` or a decorator."""
    for _ in range(LAYERS):
        inner = func.func if isinstance(func, partial) else vars(func).get("__wrapped__") if _may_wrap(func) else None
        if inner is None:
            break
        func = inner
    return func


def _may_wrap(func: Any) -> bool:
    """Return whether it may be a decorator's wrapper. A task function, which has a ``__wrapped__`` too, is not."""
    return isinstance(func, FunctionType)


def _is_starlettes(frame: FrameType | None) -> TypeGuard[FrameType]:
    return frame is not None and frame.f_globals.get("__name__") == _STARLETTE
