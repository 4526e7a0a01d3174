"""Recognise a task function that runs in FastAPI's or Starlette's own background tasks, which store nothing."""

import asyncio
import logging
import sys
from contextlib import suppress
from functools import partial
from types import FrameType, FunctionType
from typing import Any, TypeGuard

import anyio.from_thread

from afterwards import environment, telemetry
from afterwards.core.errors import NativeBackgroundTasks

_STARLETTE = "starlette.background"

LAYERS = 20
"""Frames and decorators between Starlette and a task function that are looked through."""


def refuse_native(function: Any, name: str, caller: FrameType | None) -> None:
    """Raise in development, warn once elsewhere, when ``caller`` is the old import: the task would not survive."""
    if not _is_native(function, caller):
        return
    message = (
        f"task function {name!r} was added to FastAPI's or Starlette's own background tasks, so it is not stored and "
        "is lost if the process dies: import BackgroundTasks from afterwards instead"
    )
    if environment.development():
        raise NativeBackgroundTasks(message)
    telemetry.once(f"native {name}", logging.WARNING, message)


def here() -> FrameType:
    """The frame of whoever called the function that asks."""
    return sys._getframe(2)


def _is_native(function: Any, caller: FrameType | None) -> bool:
    if _module(caller) == _STARLETTE:
        return True
    for _ in range(LAYERS):  # decorators of the function may be in between
        if caller is None:
            return False
        if _is_starlettes(caller):
            return _runs_in(caller, function)
        # In a thread of anyio's nothing on the stack says who waits for the result: the event loop knows.
        if _module(caller).startswith("anyio."):
            with suppress(RuntimeError):  # it is no such thread, but an event loop that anyio runs
                return anyio.from_thread.run_sync(_awaited_by_starlette, function)
            return False
        caller = caller.f_back
    return False


def _module(frame: FrameType | None) -> str:
    name = frame.f_globals.get("__name__") if frame else None
    return name if isinstance(name, str) else ""


def _runs_in(frame: FrameType, function: Any) -> bool:
    """Whether Starlette's task in this frame is one of this function, and does not merely come to call it."""
    return _whole(getattr(frame.f_locals.get("self"), "func", None)) is function


def _awaited_by_starlette(function: Any) -> bool:
    return any(_runs(function, task.get_coro()) for task in asyncio.all_tasks())


def _runs(function: Any, awaited: Any) -> bool:
    """Whether one of the coroutines that wait for each other is Starlette's, with this function to run."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None)
        if _is_starlettes(frame) and _runs_in(frame, function):
            return True
        awaited = getattr(awaited, "cr_await", None)
    return False


def _whole(func: Any) -> Any:
    """Return the function that is called in the end, also by a `partial` or a decorator of it."""
    for _ in range(LAYERS):
        inner = func.func if isinstance(func, partial) else vars(func).get("__wrapped__") if _may_wrap(func) else None
        if inner is None:
            break
        func = inner
    return func


def _may_wrap(func: Any) -> bool:
    """Whether it is a decorator's function: task functions, which have a ``__wrapped__`` too, are asked for as such."""
    return isinstance(func, FunctionType)


def _is_starlettes(frame: FrameType | None) -> TypeGuard[FrameType]:
    return frame is not None and frame.f_globals.get("__name__") == _STARLETTE
