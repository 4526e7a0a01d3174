"""How FastAPI injects ``BackgroundTasks``: a dependency that looks like a class."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any, Never, cast

import fastapi
import fastapi.routing
from fastapi import Depends
from starlette.requests import HTTPConnection

from afterwards.web.background_tasks import FUNCTION_STACK, _BackgroundTasks

IN_SCOPE = "afterwards.tasks"
"""Where a request's scope keeps its tasks: one object, however often it is injected."""


async def _inject_and_push(connection: HTTPConnection, native: fastapi.BackgroundTasks) -> _BackgroundTasks:
    """The request's tasks; what shall happen when the handler has returned is put on FastAPI's own stack."""
    if IN_SCOPE not in connection.scope:
        tasks = connection.scope[IN_SCOPE] = _BackgroundTasks()
        tasks.adopt(native, connection)
        _push_outermost(connection.scope[FUNCTION_STACK], tasks.leave)
    return cast(_BackgroundTasks, connection.scope[IN_SCOPE])


def _push_outermost(stack: AsyncExitStack, leave: Callable[..., Any]) -> None:
    """Leave behind all others: a session whose commit fails before the response takes the tasks with it."""
    # Only read, and not missed where it is absent: an empty stack, as most are, need not be put into another.
    if not getattr(stack, "_exit_callbacks", True):
        stack.push_async_exit(leave)
        return
    inside = stack.pop_all()
    stack.push_async_exit(leave)
    stack.push_async_exit(inside)


async def _collect(connection: HTTPConnection, native: fastapi.BackgroundTasks) -> AsyncIterator[_BackgroundTasks]:
    """The same in public API alone, at several times the cost per request."""
    if IN_SCOPE in connection.scope:
        yield connection.scope[IN_SCOPE]
        return
    tasks = connection.scope[IN_SCOPE] = _BackgroundTasks()
    tasks.adopt(native, connection)
    async with AsyncExitStack() as stack:
        stack.push_async_exit(tasks.leave)
        yield tasks


async def _inject_collected(tasks: Annotated[Any, Depends(_collect, scope="function")]) -> Any:
    """A dependency without a scope of its own, so that request-scoped ``yield`` dependencies may take the tasks too."""
    return tasks


def _injection() -> Callable[..., Any]:
    """How to inject: the quick way where this FastAPI has the stack that it needs, else the public one."""
    return _inject_and_push if f'scope["{FUNCTION_STACK}"]' in _source_of(fastapi.routing) else _inject_collected


def _source_of(module: Any) -> str:
    """Nothing where it was installed without. (``inspect`` would keep all the lines: 600 KiB for FastAPI's routing.)"""
    try:
        return module.__loader__.get_source(module.__name__) or ""
    except (ImportError, AttributeError):
        return ""


class _Alias(type(Annotated[int, None]), _root=True):  # type: ignore[call-arg, misc]
    """``Annotated[Any, Depends(...)]`` for FastAPI, and a class for everybody else.

    FastAPI gives its own object to a parameter annotated with a subclass of ``BackgroundTasks``; this it cannot.
    """

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> _BackgroundTasks:
        return _BackgroundTasks(*args, **kwargs)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, _BackgroundTasks)

    def __subclasscheck__(self, cls: type) -> bool:
        return issubclass(cls, _BackgroundTasks)

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        return (_BackgroundTasks,)

    def __or__(self, other: object) -> Never:
        raise TypeError(
            "BackgroundTasks cannot be optional: FastAPI would pass None, and what is added would be lost. They are "
            "always injected: write `background_tasks: BackgroundTasks`"
        )

    __ror__ = __or__

    def __repr__(self) -> str:
        return "afterwards.BackgroundTasks"


if TYPE_CHECKING:  # the type checkers see the class; FastAPI sees the alias
    BackgroundTasks = _BackgroundTasks
else:
    BackgroundTasks = _Alias(Any, (Depends(_injection(), scope="request"),))  # FastAPI need not find out
