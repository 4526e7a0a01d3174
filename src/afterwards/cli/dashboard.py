"""``afterwards dashboard``: serve the dashboard of a store on this machine, without its application's server."""

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer
from fastapi import Cookie, FastAPI, HTTPException, Response
from fastapi.responses import RedirectResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from afterwards.cli import output
from afterwards.cli.errors import CommandError, UsageError
from afterwards.cli.options import App, Url
from afterwards.cli.store import Store, named, run
from afterwards.client.client import Client
from afterwards.core.options import Options
from afterwards.engine import Engine

Port = Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="The port. Default: a free one.")]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Let nobody change anything there.")]

HOST = "127.0.0.1"
PREFIX = "/afterwards"
COOKIE = "afterwards-cli"

SHUTDOWN = 1
"""Seconds that open pages have when the command is ended."""


def dashboard(port: Port = 0, read_only: ReadOnly = False, url: Url = None, app: App = None) -> None:
    """Serve the dashboard on this machine, until Ctrl-C.

    Only programs of this machine can reach it, and only who has the address that is printed gets in. It is valid
    once: the browser that opens it gets a cookie, which is valid until the command ends. It runs no tasks.
    """
    try:
        import uvicorn

        from afterwards.dashboard.router import dashboard_router
    except ModuleNotFoundError as error:
        raise UsageError(f"the dashboard needs {error.name}: pip install 'afterwards[dashboard]' uvicorn") from error
    store = named(url, app)
    client = store.client or Client(store.url, Options())
    key = Key()
    served = _application(key)
    served.include_router(dashboard_router(client, key.dependency(read_only=read_only)), prefix=PREFIX)
    with suppress(KeyboardInterrupt):
        _serve(uvicorn, served, _bound(port), key, store, client)


class Key:
    """A token that opens the door once, and the cookie that whoever opened it has from then on."""

    def __init__(self) -> None:
        self.token: str | None = secrets.token_urlsafe(32)
        self._cookie = secrets.token_urlsafe(32)

    def turn(self, token: str) -> str:
        """Return the cookie for the token, which is used up. Raises HTTPException."""
        if self.token is None or not secrets.compare_digest(self.token.encode(), token.encode()):
            raise HTTPException(401, "this address was used already, or is wrong: run `afterwards dashboard` again")
        self.token = None
        return self._cookie

    def dependency(self, *, read_only: bool) -> Callable[..., str]:
        """Return the dependency that decides who may see the dashboard."""

        def holder(cookie: Annotated[str, Cookie(alias=COOKIE)] = "") -> str:
            if not secrets.compare_digest(cookie.encode(), self._cookie.encode()):
                raise HTTPException(401, "open the address that `afterwards dashboard` has printed")
            return "read" if read_only else "act"

        return holder


def _application(key: Key) -> FastAPI:
    app = FastAPI(openapi_url=None)
    # Another site may let its name point to this machine. A browser would send no cookie there, but would show answers.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])

    @app.get("/enter")
    def enter(token: str) -> Response:
        cookie = key.turn(token)
        response = RedirectResponse(f"{PREFIX}/", 303, headers={"Cache-Control": "no-store"})
        response.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", path=PREFIX)
        return response

    return app


def _bound(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise CommandError(f"--port {port}: {error.strerror or error}") from error


def _serve(uvicorn: Any, app: FastAPI, bound: socket.socket, key: Key, store: Store, client: Client) -> None:
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=SHUTDOWN
    )

    async def served(engine: Engine) -> None:
        output.line(f"http://{HOST}:{bound.getsockname()[1]}/enter?token={key.token}")
        output.flush()
        output.say(f"the dashboard of {store.shown}: open this address, which is valid once. Ctrl-C ends it")
        try:
            await uvicorn.Server(config).serve(sockets=[bound])
        finally:
            await client.close()

    with bound:
        run(store, served)
