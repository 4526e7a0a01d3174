"""Recognise a task function that runs in FastAPI's or Starlette's own background tasks, which store nothing."""

import asyncio
import logging
import sys
from functools import partial
from types import FrameType
from typing import Any, TypeGuard

import anyio.from_thread

from afterwards import environment, telemetry
from afterwards.core.errors import NativeBackgroundTasks

_STARLETTE = "starlette.background"


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
    module = caller.f_globals.get("__name__", "") if caller else ""
    if module == _STARLETTE:
        return True
    # In a thread of anyio's nothing on the stack says who waits for the result: the event loop knows.
    return module.startswith("anyio.") and anyio.from_thread.run_sync(_awaited_by_starlette, function)


def _awaited_by_starlette(function: Any) -> bool:
    return any(_runs(function, task.get_coro()) for task in asyncio.all_tasks())


def _runs(function: Any, awaited: Any) -> bool:
    """Whether one of the coroutines that wait for each other is Starlette's, with this function to run."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None)
        if _is_starlettes(frame) and _whole(getattr(frame.f_locals.get("self"), "func", None)) is function:
            return True
        awaited = getattr(awaited, "cr_await", None)
    return False


def _whole(func: Any) -> Any:
    """The function that is called in the end, also by a `partial` of it."""
    return func.func if isinstance(func, partial) else func


def _is_starlettes(frame: FrameType | None) -> TypeGuard[FrameType]:
    return frame is not None and frame.f_globals.get("__name__") == _STARLETTE
