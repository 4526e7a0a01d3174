"""Find the routes of an application that ask for BackgroundTasks, and put a dependency before all others of them.

Uses public names of FastAPI: ``iter_route_contexts`` (absent in versions that copy the routes of an included router at
once), a route's ``dependant``, ``get_dependant`` and ``get_parameterless_sub_dependant``. Only the routes of
``app.frontend()`` have no public name. If a later FastAPI hides them, their tasks are not stored, which is logged.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import fastapi.routing
from fastapi import APIRouter, BackgroundTasks, FastAPI, params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, get_parameterless_sub_dependant
from starlette.routing import Host, Mount

Overrides = Mapping[Callable[..., Any], Callable[..., Any]]

LAYERS = 20
"""Maximum of middleware layers around a mounted application."""


@dataclass
class Routes:
    """The routes of an application, including those of included routers and mounted applications."""

    dependants: list[tuple[Dependant, Overrides]] = field(default_factory=list)
    """The dependencies of each route, with the overrides that apply to it."""
    owners: list[Any] = field(default_factory=list)
    """All objects that have ``routes``."""
    entered: list[Any] = field(default_factory=list)
    """The applications among them."""
    apps: list[FastAPI] = field(default_factory=list)


def routes_of(app: FastAPI) -> Routes:
    found = Routes()
    _look_into(app, {}, found)
    return found


def insertable() -> bool:
    """Return whether this FastAPI exposes its routes as ``routes_of`` expects, also those of an included router."""

    async def endpoint(tasks: BackgroundTasks) -> None: ...

    app, router = FastAPI(openapi_url=None), APIRouter()
    router.add_api_route("/", endpoint)
    app.include_router(router)
    try:
        return any(asks_for_tasks(dependant, overrides) for dependant, overrides in routes_of(app).dependants)
    except AttributeError:
        return False


def asks_for_tasks(dependant: Dependant, overrides: Overrides) -> bool:
    """Return whether a route, or a dependency of it at any depth, has a parameter for BackgroundTasks."""
    if dependant.background_tasks_param_name:
        return True
    for needed in dependant.dependencies:
        override = overrides.get(needed.call) if needed.call else None
        if asks_for_tasks(needed if override is None else _overriding(override, needed), overrides):
            return True
    return False


def put_first(dependant: Dependant, first: params.Depends, *, instead_of: Callable[[Any], bool]) -> None:
    """Make a route solve this dependency before all others, instead of those that it replaces."""
    # A new list, because a request may be iterating over the old one.
    dependant.dependencies = [
        get_parameterless_sub_dependant(depends=first, path=dependant.path or ""),
        *(needed for needed in dependant.dependencies if not instead_of(needed.call)),
    ]


def _look_into(owner: Any, overrides: Overrides, found: Routes) -> None:
    if any(owner is known for known in found.entered):
        return
    found.entered.append(owner)
    _watch(owner, found)
    if isinstance(owner, FastAPI):
        found.apps.append(owner)
        overrides = owner.dependency_overrides
    for route in (*_with_those_of_included_routers(owner.routes), *_frontends(owner)):
        dependant = getattr(route, "dependant", None)
        if isinstance(dependant, Dependant):
            found.dependants.append((dependant, overrides))
        elif isinstance(getattr(route, "original_route", route), Mount | Host) and (inner := _within(route.app)):
            _look_into(inner, overrides, found)


def _watch(owner: Any, found: Routes) -> None:
    """Record an owner of routes, and the routers that it includes."""
    if any(owner is known for known in found.owners):
        return
    found.owners.append(owner)
    for route in owner.routes:
        if (included := getattr(route, "original_router", None)) is not None:
            _watch(included, found)


def _with_those_of_included_routers(routes: Sequence[Any]) -> Iterator[Any]:
    every: Callable[[Sequence[Any]], Iterator[Any]] = getattr(fastapi.routing, "iter_route_contexts", iter)
    return every(routes)


def _frontends(owner: Any) -> Iterator[Any]:
    """Yield the routes of an owner's ``frontend()``: dependencies of its application and routers run for them, too."""
    yield from getattr(getattr(owner, "router", owner), "_low_priority_routes", ())
    for route in owner.routes:
        yield from getattr(route, "effective_low_priority_routes", list)()


def _within(app: Any) -> Any:
    """Return the application inside middleware, or None."""
    for _ in range(LAYERS):
        if app is None or hasattr(app, "routes"):
            return app
        app = getattr(app, "app", None)
    return None


def _overriding(override: Callable[..., Any], overridden: Dependant) -> Dependant:
    """Return the dependencies of an override; none if FastAPI cannot read them: requests that need it fail later."""
    with suppress(Exception):  # it evaluates annotations of a user function
        return get_dependant(path=overridden.path or "", call=override)
    return Dependant()
