"""The exit stacks that FastAPI keeps in a request's scope. Only this module knows their names.

They are not documented. FastAPI 0.121 to 0.165 have them, and each is looked up in each request. Without the first
the public API is used (``injection.py``). Without the others, plain tasks that FastAPI itself drops are lost.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType

from starlette.types import Scope

FUNCTION_STACK = "fastapi_function_astack"
"""Closes when the handler has returned, before the response begins."""

REQUEST_STACK = "fastapi_inner_astack"
"""Closes after the response."""

MIDDLEWARE_STACK = "fastapi_middleware_astack"
"""Closes after everything else of a request."""

Exit = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], Awaitable[None]]
"""A callback that gets the raised exception. It swallows nothing."""


class ExitStacks:
    """The three stacks of one request. Holds no connection: its scope would make a reference cycle."""

    __slots__ = ("_function", "_middleware", "_request")

    def __init__(self, scope: Scope) -> None:
        self._function: AsyncExitStack | None = scope.get(FUNCTION_STACK)
        self._request: AsyncExitStack | None = scope.get(REQUEST_STACK)
        self._middleware: AsyncExitStack | None = scope.get(MIDDLEWARE_STACK)

    def when_handler_ends(self, leave: Exit) -> bool:
        """Call ``leave`` before the response begins. Return whether this FastAPI supports that."""
        if self._function is None:
            return False
        self._function.push_async_exit(leave)
        return True

    async def close_request(self) -> None:
        """Close the dependencies now that FastAPI would close after the response."""
        if self._request is not None:
            await self._request.aclose()

    def when_request_closes(self, leave: Exit) -> None:
        """Call ``leave`` after the response."""
        if self._request is not None:
            self._request.push_async_exit(leave)

    def after_everything(self, leave: Exit) -> None:
        """Call ``leave`` when all dependencies have closed. FastAPI closes uploaded files later still."""
        if self._middleware is not None:
            self._middleware.push_async_exit(leave)
