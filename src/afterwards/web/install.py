"""Attach an installation to an application."""

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.encoders import ENCODERS_BY_TYPE
from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.routing import Mount
from starlette.types import ASGIApp

from afterwards.client.client import Client
from afterwards.client.handle import TaskHandle
from afterwards.client.installations import installations
from afterwards.core.errors import AlreadyInstalled, AlreadyStarted
from afterwards.web.injection import Injection
from afterwards.web.lifespan import Lifespan
from afterwards.web.middleware import Boundary
from afterwards.web.refusals import REFUSALS
from afterwards.web.runners import Serving
from afterwards.web.without_lifespan import WithoutLifespan

DEEPEST: Final = 1000
"""Maximum layers of middleware to look through: one may name itself as the one inside it."""


def attach(app: FastAPI, client: Client, serving: Callable[[], Serving]) -> None:
    """Put the boundary round the whole application, and the worker into its lifespan.

    Raises AlreadyStarted, AlreadyInstalled.
    """
    if app.middleware_stack is not None:
        raise AlreadyStarted(
            "Afterwards(app) was called after the application had started: call it right after `app = FastAPI()`"
        )
    if app in installations.applications:
        raise AlreadyInstalled("this application already has an Afterwards installed: remove one of the two")
    installations.applications.add(app)
    for error, answer in REFUSALS.items():
        app.exception_handlers.setdefault(error, answer)  # the application may have its own
    # FastAPI asks pydantic only for what a return annotation or `response_model` names.
    ENCODERS_BY_TYPE.setdefault(TaskHandle, TaskHandle.as_json)
    Enclosure(app, client, serving).begin()


class Enclosure:
    """Keeps the boundary outside all middleware of an application, and the worker in its outermost lifespan."""

    def __init__(self, app: FastAPI, client: Client, serving: Callable[[], Serving]) -> None:
        self._app = app
        self._client = client
        self._serving = serving
        self._alone = WithoutLifespan(client, serving)
        self._injection = Injection(app, self.restore)
        self._lifespan: Lifespan | None = None

    def begin(self) -> None:
        self._enclose_lifespan()
        self._wrap(self._app.build_middleware_stack)

    def restore(self) -> bool:
        """Put the boundary back if other code has dropped it. Return whether a stack without it was in use.

        Such code restores a function that it saved before the installation, as OpenTelemetry's ``uninstrument_app``.
        """
        if self._app.middleware_stack is None:
            if self._app.build_middleware_stack is not self._build:
                self._wrap(self._app.build_middleware_stack)
            return False
        if _has_boundary(self._app.middleware_stack):
            return False
        self._app.middleware_stack = self._enclosed(self._app.middleware_stack)
        return True

    def _wrap(self, build: Callable[[], ASGIApp]) -> None:
        def build_middleware_stack() -> ASGIApp:
            """Build the stack at start-up, which encloses middleware and lifespans added after the installation."""
            self._enclose_lifespan()
            stack = build()
            if _has_boundary(stack):
                return stack
            enclosed = self._enclosed(stack)
            if self._app.build_middleware_stack is build_middleware_stack:
                return enclosed
            # Other code, such as OpenTelemetry, wraps our function and looks for Starlette's outermost middleware.
            return ServerErrorMiddleware(enclosed)

        self._build = build_middleware_stack
        self._app.build_middleware_stack = build_middleware_stack  # type: ignore[method-assign]  # only this is outside

    def _enclosed(self, stack: ASGIApp) -> Boundary:
        _refuse_in_mounted(self._app)
        self._injection.insert()
        return Boundary(stack, self._client, self._serving, self._alone, self._injection)

    def _enclose_lifespan(self) -> None:
        router = self._app.router
        if router.lifespan_context is self._lifespan:
            return
        if self._lifespan is not None:  # a router with its own lifespan was included
            self._lifespan.step_aside()
        self._lifespan = Lifespan(router.lifespan_context, self._client, self._serving, self._alone, self.restore)
        router.lifespan_context = self._lifespan


def _has_boundary(stack: Any) -> bool:
    """Return whether a boundary is among nested middlewares; False, too, if one of them does not show what is inside.

    A second boundary round the first one does no harm: all tasks are those of the inner one.
    """
    for _ in range(DEEPEST):
        if stack is None or isinstance(stack, Boundary):
            break
        stack = getattr(stack, "app", None)
    return isinstance(stack, Boundary)


def _refuse_in_mounted(app: Starlette) -> None:
    """Give mounted applications the same answers to refusals: they handle their exceptions themselves."""
    for route in app.routes:
        mounted = getattr(route, "app", None)
        if isinstance(route, Mount) and isinstance(mounted, Starlette):
            for error, answer in REFUSALS.items():
                mounted.exception_handlers.setdefault(error, answer)
            _refuse_in_mounted(mounted)
