"""Recognise a task function inside a decorator's wrapper, a partial or a bound method."""

from functools import partial
from types import MethodType
from typing import Any, TypeGuard

from afterwards.core.errors import WrappedTaskFunction
from afterwards.tasks.function import TaskFunction

DEEPEST = 50
"""Maximum layers of wrappers to unwrap: an object may name itself as the one that it wraps."""


def is_task_function(func: Any) -> TypeGuard[TaskFunction[Any, Any, Any]]:
    """Return whether it is a task function itself, and not a proxy that imitates its class and may do more."""
    return issubclass(type(func), TaskFunction)


def is_call(func: Any) -> TypeGuard[MethodType]:
    """Return whether it is ``f.__call__`` of a task function."""
    return isinstance(func, MethodType) and is_task_function(func.__self__) and func.__name__ == "__call__"


def leads_to_call(func: Any) -> bool:
    """Return whether calling it only calls a task function."""
    while isinstance(func, partial):  # a partial with its own attributes is not merged with the outer one
        func = func.func
    return is_task_function(func) or is_call(func)


def refuse_wrapped(func: Any) -> None:
    """Raise WrappedTaskFunction for an object that calls a task function without storing the call."""
    if isinstance(func, MethodType) and is_task_function(func.__self__):
        raise WrappedTaskFunction(
            func.__self__.name,
            f"{func.__self__.name}.{func.__name__} would not be stored before the response: write "
            f"`background_tasks.add_task({func.__self__.name}, ...)`",
        )
    if (inner := wrapped_in(func)) is not None:
        raise WrappedTaskFunction(
            inner.name,
            f"a decorator ({_named(func)}) wraps it, so the call would not be stored, and would be lost if the process "
            "dies: write @task above all other decorators; they then run as part of the task",
        )


def wrapped_in(func: Any) -> TaskFunction[Any, Any, Any] | None:
    """Return the task function that a wrapper says it wraps, through any number of layers."""
    for _ in range(DEEPEST):
        if func is None or is_task_function(func):
            return func
        func = func.func if isinstance(func, partial) else _within(func)
    return None


def _within(func: Any) -> Any:
    try:
        inner = getattr(func, "__wrapped__", None)
        if inner is None and type(func).__module__.startswith("asgiref."):
            inner = getattr(func, "awaitable", None)  # AsyncToSync sets no ``__wrapped__``
    except Exception:  # an attribute of a user object may run user code
        return None
    return inner


def _named(func: Any) -> str:
    code = getattr(func, "__code__", None)
    return getattr(code, "co_qualname", None) or getattr(code, "co_name", None) or type(func).__qualname__
