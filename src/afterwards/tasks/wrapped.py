"""Recognise a task function inside a decorator's wrapper, a partial or a bound method."""

from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final, TypeGuard, TypeVar

from afterwards.core.errors import NotAFunction, WrappedTaskFunction
from afterwards.tasks.function import TaskFunction

DEEPEST = 50
"""Maximum layers of wrappers to unwrap: an object may name itself as the one that it wraps."""


F = TypeVar("F", bound=Callable[..., Any])

_INSTEAD: Final = "_afterwards_instead"


def enqueues(instead: str) -> Callable[[F], F]:
    """Mark a function that stores tasks itself: as a background task it would do so only after the response.

    ``instead`` is what to write.
    """

    def marked(function: F) -> F:
        vars(function)[_INSTEAD] = instead
        return function

    return marked


def is_task_function(func: Any) -> TypeGuard[TaskFunction[Any, Any, Any]]:
    """Return whether it is a task function itself, and not a proxy that imitates its class and may do more."""
    return issubclass(type(func), TaskFunction)


def is_bare(func: Any) -> bool:
    """Return whether it is a function without attributes, as most are: it wraps nothing, and has no mark of ours."""
    return type(func) is FunctionType and not func.__dict__


def is_call(func: Any) -> TypeGuard[MethodType]:
    """Return whether it is ``f.__call__`` of a task function."""
    return isinstance(func, MethodType) and is_task_function(func.__self__) and func.__name__ == "__call__"


def leads_to_call(func: Any) -> bool:
    """Return whether calling it only calls a task function."""
    while isinstance(func, partial):  # a partial with its own attributes is not merged with the outer one
        func = func.func
    return is_task_function(func) or is_call(func)


def refuse_enqueuing(func: Any) -> None:
    """Raise NotAFunction or WrappedTaskFunction for a function that stores tasks itself, also inside a wrapper."""
    for layer in _layers(func):
        if isinstance(layer, MethodType) and is_task_function(layer.__self__):
            _refuse_method(layer)
        function = layer.__func__ if isinstance(layer, MethodType) else layer
        if isinstance(function, FunctionType) and (instead := vars(function).get(_INSTEAD)):
            raise NotAFunction(
                f"add_task({function.__qualname__}, ...): it would store its tasks only after the response, so they "
                f"are lost if the process dies before: write `{instead}`"
            )


def refuse_wrapped(func: Any) -> None:
    """Raise WrappedTaskFunction for an object that calls a task function without storing the call."""
    if isinstance(func, MethodType) and is_task_function(func.__self__):
        _refuse_method(func)
    if isinstance(func, MethodType) and is_task_function(func.__func__):
        raise WrappedTaskFunction(
            func.__func__.name,
            "it is bound to an object, so the call would not be stored, and would be lost if the process dies: write "
            f"`background_tasks.add_task({func.__func__.name}, ...)` with that object as the first argument",
        )
    if (inner := wrapped_in(func)) is not None:
        raise WrappedTaskFunction(
            inner.name,
            f"a decorator ({_named(func)}) wraps it, so the call would not be stored, and would be lost if the process "
            "dies: write @task above all other decorators; they then run as part of the task",
        )


def wrapped_in(func: Any) -> TaskFunction[Any, Any, Any] | None:
    """Return the task function that a wrapper says it wraps, through any number of layers."""
    return next((layer for layer in _layers(func) if is_task_function(layer)), None)


def _refuse_method(method: MethodType) -> None:
    name = method.__self__.name  # type: ignore[attr-defined]  # of a task function
    raise WrappedTaskFunction(
        name,
        f"{name}.{method.__name__} would not be stored before the response: write "
        f"`background_tasks.add_task({name}, ...)`",
    )


def _layers(func: Any) -> Iterator[Any]:
    """Yield a function and what it says it wraps, from the outside, to the first task function."""
    for _ in range(DEEPEST):
        if func is None:
            return
        yield func
        if is_task_function(func):
            return
        if isinstance(func, partial):
            func = func.func
        elif isinstance(func, MethodType) and is_task_function(func.__func__):
            func = func.__func__  # its attribute ``__wrapped__`` is the plain function
        else:
            func = _within(func)


def _within(func: Any) -> Any:
    try:
        inner = getattr(func, "__wrapped__", None)
        if inner is None and type(func).__module__.startswith("asgiref."):
            inner = getattr(func, "awaitable", None)  # AsyncToSync sets no ``__wrapped__``
    except BaseException:  # an attribute of a user object may run user code
        return None
    return inner


def _named(func: Any) -> str:
    code = getattr(func, "__code__", None)
    return getattr(code, "co_qualname", None) or getattr(code, "co_name", None) or type(func).__qualname__
