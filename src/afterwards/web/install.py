"""Attach an installation to an application."""

from collections.abc import Callable

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
from afterwards.web.embedded_worker import Serving
from afterwards.web.injection import Injection
from afterwards.web.lifespan import Lifespan
from afterwards.web.middleware import Boundary
from afterwards.web.refusals import REFUSALS
from afterwards.web.without_lifespan import WithoutLifespan


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
    injection = Injection(app)
    alone = WithoutLifespan(client, serving)
    lifespan = app.router.lifespan_context = Lifespan(app.router.lifespan_context, client, serving, alone)
    build = app.build_middleware_stack

    def build_middleware_stack() -> ASGIApp:
        """Build the stack at start-up, so that it encloses middleware and lifespans added after the installation."""
        if app.router.lifespan_context is not lifespan:  # a router with its own lifespan was included
            lifespan.step_aside()
            app.router.lifespan_context = Lifespan(app.router.lifespan_context, client, serving, alone)
        _refuse_in_mounted(app)
        injection.insert()
        stack = Boundary(build(), client, serving, alone, injection)
        if app.build_middleware_stack is build_middleware_stack:
            return stack
        # Other code, such as OpenTelemetry, wraps our function and looks for Starlette's outermost middleware.
        return ServerErrorMiddleware(stack)

    app.build_middleware_stack = build_middleware_stack  # type: ignore[method-assign]  # the only place outside all


def _refuse_in_mounted(app: Starlette) -> None:
    """Give mounted applications the same answers to refusals: they handle their exceptions themselves."""
    for route in app.routes:
        mounted = getattr(route, "app", None)
        if isinstance(route, Mount) and isinstance(mounted, Starlette):
            for error, answer in REFUSALS.items():
                mounted.exception_handlers.setdefault(error, answer)
            _refuse_in_mounted(mounted)
