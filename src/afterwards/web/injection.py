"""Convert the BackgroundTasks that FastAPI makes for a request into ours, on each route that asks for them.

A dependency without a parameter is put before all others of such a route. FastAPI makes one object for each request,
and gives it to that dependency first; it changes the object's class, and everybody after it gets the same object.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import fastapi
from fastapi import Depends, FastAPI, HTTPException, params
from starlette.requests import HTTPConnection

from afterwards import telemetry
from afterwards.client.request import request_tasks
from afterwards.web.background_tasks import BackgroundTasks
from afterwards.web.exit_stacks import FUNCTION_STACK
from afterwards.web.refusals import RETRY_AFTER, STORE_UNAVAILABLE
from afterwards.web.routes import Overrides, asks_for_tasks, insertable, put_first, routes_of


class Injection:
    """Keeps that dependency in the routes of an application, its included routers and its mounted applications."""

    def __init__(self, app: FastAPI, restore_boundary: Callable[[], bool]) -> None:
        self._app = app
        self._restore_boundary = restore_boundary
        self._first: params.Depends = Depends(self.adopt)
        self._routes: Sequence[tuple[Any, list[Any]]] = ()  # as of the last scan
        self._overrides: Sequence[tuple[FastAPI, Overrides]] = ()
        if not insertable():
            app.router.dependencies.insert(0, self._first)
            telemetry.injected_everywhere(fastapi.__version__)

    def renew(self) -> None:
        """Put the dependency into routes added since the last scan, and into those that ask only through an override.

        Called in each request. Comparing lists of the same routes takes a fraction of the time of matching them.
        """
        for owner, routes in self._routes:
            if owner.routes != routes:
                return self.insert()
        for app, overrides in self._overrides:
            if app.dependency_overrides != overrides:
                return self.insert()
        return None

    def insert(self) -> None:
        """Put the dependency into all routes that ask for BackgroundTasks."""
        found = routes_of(self._app)
        for dependant, overrides in found.dependants:
            if asks_for_tasks(dependant, overrides):
                put_first(dependant, self._first, instead_of=_is_ours)
        self._routes = [(owner, list(owner.routes)) for owner in found.owners]
        self._overrides = [(app, dict(app.dependency_overrides)) for app in found.apps]

    async def adopt(self, connection: HTTPConnection, native: fastapi.BackgroundTasks) -> None:
        """Convert the request's object to ours, and have its tasks stored when the handler has ended.

        Raises HTTPException 503 if the request did not pass through the boundary, which the next one does.
        """
        if request_tasks.get() is None:
            self._check_boundary(connection)
        tasks = _adopted(connection, native)
        if tasks is not None and not tasks.leave_when_handler_ends():
            # Calls of this request are stored when its response begins; later requests use the public API.
            telemetry.injected_with_yield(fastapi.__version__, FUNCTION_STACK)
            self._first = Depends(self.collect, scope="function")
            self.insert()

    async def collect(self, connection: HTTPConnection, native: fastapi.BackgroundTasks) -> AsyncIterator[None]:
        """Do the same with the public API alone, at several times the cost per request."""
        if request_tasks.get() is None:
            self._check_boundary(connection)
        async with AsyncExitStack() as stack:
            if (tasks := _adopted(connection, native)) is not None:
                stack.push_async_exit(tasks.leave)
            yield

    def _check_boundary(self, connection: HTTPConnection) -> None:
        """Refuse the request if other code has dropped the application's boundary: its tasks would not be durable."""
        if self._restore_boundary():
            telemetry.boundary_restored(refused=connection.url.path)
            raise HTTPException(503, STORE_UNAVAILABLE, headers=RETRY_AFTER)


def _adopted(connection: HTTPConnection, native: fastapi.BackgroundTasks) -> BackgroundTasks | None:
    """Convert FastAPI's object to ours. Return None if nothing would publish its tasks, or if it is not FastAPI's."""
    request = request_tasks.get()
    if request is None or type(native) is not fastapi.BackgroundTasks:
        return None
    native.__class__ = BackgroundTasks
    assert isinstance(native, BackgroundTasks)
    native.serve(request, connection)
    return native


def _is_ours(call: Any) -> bool:
    """Return whether a dependency belongs to an installation, also to another one that is mounted in this one."""
    return isinstance(getattr(call, "__self__", None), Injection)
