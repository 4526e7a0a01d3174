"""Guard the dashboard: who may send what, and the headers of every answer."""

from collections.abc import Mapping

from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterwards.dashboard import site
from afterwards.dashboard.answers import refusal
from afterwards.dashboard.origins import SAFE, from_another_site

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ]
)

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with "no-referrer", browsers send `Origin: null` with the pages' own forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses requests of other sites, and all that would change something for a visitor who may only look."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if from_another_site(method, scope["scheme"], Headers(scope=scope)):
            app: ASGIApp = refusal(scope, 403, "refused: the request was made by another site")
        elif method not in SAFE and not may_send(scope):
            app = refusal(scope, 403, "you may look, and not change anything")
        else:
            app = self._app
        await app(scope, receive, send)


def may_send(scope: Scope) -> bool:
    """Return True if the visitor may change something. The colours of the pages are everybody's own choice."""
    seen = site.within(scope)
    return seen.may_act or scope["path"] == f"{seen.base}/theme"


class Hardened(APIRoute):
    """A route whose answers have the headers, also those that the application gives where it refuses somebody."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                _harden(MutableHeaders(scope=message))
            await send(message)

        await super().handle(scope, receive, send_hardened)


def _harden(headers: MutableHeaders) -> None:
    """Add the headers that an answer does not have yet."""
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
