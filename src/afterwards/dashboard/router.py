"""Put the dashboard together: one route in the application, and behind it an application of its own.

The route's path takes everything below the prefix, and its dependency is the application's ``auth``. So nothing of the
dashboard is reached past it, neither a file nor an unknown path; it sees the application that it belongs to, and its
overrides. Behind the route, the dashboard answers its own errors, and describes its API in its own OpenAPI.
"""

from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterwards.client.client import Client
from afterwards.dashboard import api, closed, site
from afterwards.dashboard.access import Access, dependency, refuses_none, visitor
from afterwards.dashboard.answers import Json, answer_errors
from afterwards.dashboard.guard import Guard, Hardened
from afterwards.dashboard.pages import router as pages
from afterwards.dashboard.site import Site, Visited
from afterwards.web.exit_stacks import ExitStacks

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def dashboard_router(client: Client, auth: object = None) -> APIRouter:
    """Return the dashboard of an installation, for ``app.include_router(..., prefix=...)``. Raises InvalidOption."""
    inside = Guard(inner_app())
    let_in = dependency(closed.unless_local if auth is None else auth)
    nobody = refuses_none(let_in.dependency)  # if it returns None

    async def enter(request: Request, response: Response, granted: Any = let_in) -> Response:
        access, name = visitor(False if granted is None and nobody else granted)
        if access is Access.NONE:
            raise HTTPException(403, "you may not see this dashboard")
        who = name or (request.client.host if request.client else "unknown")
        return _Inside(inside, client, access, who, response)

    router = APIRouter(route_class=Hardened)
    router.add_api_route("{below:afterwards_below}", enter, methods=METHODS, include_in_schema=False)
    return router


def inner_app() -> FastAPI:
    """Return what answers visitors who were let in. Its paths begin at the dashboard's prefix."""
    app = FastAPI(title="afterwards", openapi_url=None, docs_url=None, redoc_url=None)
    answer_errors(app)

    @app.get("/api/openapi.json", include_in_schema=False)
    async def describe(site: Visited) -> Json:
        """Return the description of the API at its address. FastAPI itself keeps the first one that it is asked at."""
        return Json({**app.openapi(), "servers": [{"url": site.base or "/"}]})

    app.include_router(api.router, prefix="/api")
    app.include_router(pages.router)
    return app


class Below(Convertor[str]):
    """Everything below a prefix, and the prefix itself: "", "/", "/tasks/1"."""

    regex = r"(?:/[\s\S]*)?"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("afterwards_below", Below())


class _Inside(Response):
    """The answer of the dashboard's own application."""

    def __init__(self, app: ASGIApp, client: Client, access: Access, who: str, prepared: Response) -> None:
        self._app = app
        self._client = client
        self._access = access
        self._who = who
        self._prepared = prepared  # has the headers that the dependency has set, such as a renewed cookie
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        below = scope["path_params"]["below"]
        seen = Site(client=self._client, base=base_of(scope, below), access=self._access, who=self._who)

        async def send_prepared(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self._prepared.headers.raw]}
            await send(message)

        # What the dependency has added runs after the answer, and may need what it has opened.
        release = ExitStacks(scope).close_request if self.background is None else _keep_open
        await self._app(site.entered(scope, seen, path=below or "/", release=release), receive, send_prepared)
        if self.background is not None:  # FastAPI has put there what the dependency has added
            await self.background()


async def _keep_open() -> None: ...


def base_of(scope: Scope, below: str) -> str:
    """Return the public path of the dashboard.

    A server or proxy may pass the path with ``root_path`` or without it.

    >>> base_of({"path": "/v1/afterwards/tasks", "root_path": "/v1"}, "/tasks")
    '/v1/afterwards'
    >>> base_of({"path": "/afterwards/tasks", "root_path": "/v1"}, "/tasks")
    '/v1/afterwards'
    """
    root: str = scope.get("root_path", "").rstrip("/")
    path: str = scope["path"]
    here = path[: len(path) - len(below)]
    return here if here == root or here.startswith(f"{root}/") else root + here
