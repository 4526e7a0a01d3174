"""``Site``: the dashboard as one request sees it. The API and the pages share it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, cast
from urllib.parse import quote

from fastapi import Depends, HTTPException, Request
from starlette.types import Scope

from afterwards.client.client import Client
from afterwards.dashboard.access import Access
from afterwards.engine import Engine

Release = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The installation that the dashboard shows, its address, and the visitor."""

    client: Client
    base: str  # the public path of the dashboard, as "/v1/afterwards": behind a proxy, too; "" at the root
    access: Access
    who: str  # the visitor's name, else the address; for the log

    @property
    def may_act(self) -> bool:
        return self.access is Access.ACT

    def is_api(self, scope: Scope) -> bool:
        """Return True if a request is for the API, and not for a page."""
        path: str = scope["path"]
        return path.startswith(f"{self.base}/api/")

    async def engine(self) -> Engine:
        """Return the open engine. Raises EngineError."""
        return await self.client.open()

    def link(self, *parts: str) -> str:
        """Return the path of a page: ``site.link("tasks", id)``. Each part is quoted.

        >>> Site(client=..., base="/v1/afterwards", access=Access.READ, who="").link("queues", "a/b")
        '/v1/afterwards/queues/a%2Fb'
        """
        return "/".join([quote(self.base), *(quote(part, safe="") for part in parts)]) or "/"


_KEY, _RELEASE = "afterwards.site", "afterwards.release"

_KEPT = (  # ASGI's own
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "query_string",
    "headers",
    "client",
    "server",
    "state",
    "extensions",
)


def entered(scope: Scope, site: Site, *, path: str, release: Release) -> Scope:
    """Return the scope of a request inside the dashboard.

    ``path`` is below its base, with a leading slash; ``release`` closes what the visitor's dependency has opened.
    """
    kept = {key: scope[key] for key in _KEPT if key in scope}  # without what the outer application keeps there
    return {**kept, "root_path": site.base, "path": site.base + path, _KEY: site, _RELEASE: release}


async def release(scope: Scope) -> None:
    """Close what the visitor's dependency has opened, such as a session, before an answer that lasts."""
    await scope[_RELEASE]()


def within(scope: Scope) -> Site:
    """Return the site of a request inside the dashboard."""
    return cast(Site, scope[_KEY])


def of(request: Request) -> Site:
    """Return the site of a request inside the dashboard."""
    return within(request.scope)


def acting(request: Request) -> Site:
    """Return the site of a visitor who may act. The guard has refused all others already."""
    site = of(request)
    if not site.may_act:
        raise HTTPException(403, "you may look, and not change anything")
    return site


Visited = Annotated[Site, Depends(of)]
"""The site, for a parameter of an endpoint."""

Acting = Annotated[Site, Depends(acting)]
"""The site, for an endpoint that changes something."""
