"""The store of a command: which one it is, and how it is opened."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from afterwards import engines, environment
from afterwards.cli.application import installation, load
from afterwards.cli.errors import CommandError, NoApplication, StoreUnreachable, UsageError, store_error
from afterwards.client.client import Client
from afterwards.core.errors import AfterwardsError, EngineError, EngineUnavailable, UnsupportedEngine
from afterwards.core.urls import parse
from afterwards.engine import Engine

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Store:
    """The store of a command, and the application's installation if the application was loaded."""

    url: str
    client: Client | None = None

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return engines.shown(self.url)


def named(url: str | None, app: str | None) -> Store:
    """Return the store of a command: ``--url``, else AFTERWARDS_URL, else that of the application, which is loaded.

    A folder without an application may have ``afterwards.db``. Raises UsageError.
    """
    given = environment.url() if url is None else url
    if given is not None and app is None:
        return Store(given)
    try:
        client = installed(app)
    except NoApplication as error:
        if Path(parse(engines.DEFAULT_URL).file).is_file():
            return Store(engines.DEFAULT_URL)
        raise UsageError(f"no store is named: give --url, or set AFTERWARDS_URL, or give --app: {error}") from error
    except UsageError as error:
        if app is not None:
            raise
        raise UsageError(f"{error}. The application names the store, unless you give --url") from error
    return _of_client(client, given)


def with_application(url: str | None, app: str | None) -> tuple[Store, Client]:
    """Return the store for a command that needs the application's task functions. Raises UsageError."""
    client = installed(app)
    return _of_client(client, environment.url() if url is None else url), client


def installed(app: str | None) -> Client:
    """Load the application and return its installation. What it prints goes to stderr. Raises UsageError."""
    with redirect_stdout(sys.stderr):
        return installation(load(app))


def _of_client(client: Client, given: str | None) -> Store:
    if given is not None:
        client.url = given
    return Store(client.url, client)


def run(store: Store, call: Callable[[Engine], Awaitable[R]], *, create: bool = False) -> R:
    """Open the store and call. Raises CommandError with the exit code that fits; errors of drivers are never shown."""

    async def opened_for_call() -> R:
        async with opened(store.url, create=create) as engine:
            return await call(engine)

    return waited_for(store, opened_for_call())


def waited_for(store: Store, call: Coroutine[Any, Any, R]) -> R:
    """Run a call of a store to its end. Raises CommandError as ``run`` does."""
    try:
        return asyncio.run(call)
    except EngineError as error:
        what = "does not answer" if isinstance(error, EngineUnavailable) else "refuses"
        raise store_error(error, _said_of(store.shown, what, error)) from error
    except AfterwardsError as error:
        raise CommandError(str(error)) from error


def _said_of(shown: str, what: str, error: EngineError) -> str:
    """Return what an engine says of its store, whose name is said once."""
    return f"the store {error}" if str(error).startswith(shown) else f"the store {shown} {what}: {error}"


@asynccontextmanager
async def opened(url: str, *, create: bool = False) -> AsyncIterator[Engine]:
    """Open the store at a URL. A missing file is only made with ``create``.

    Raises UsageError for a URL that names no store for a command, StoreUnreachable or StoreRefused if it cannot be
    opened.
    """
    check(url, create=create)
    try:
        engine = engines.shared(url)
        await engine.__aenter__()
    except EngineError as error:
        raise store_error(error, _said_of(engines.shown(url), "cannot be opened", error)) from error
    try:
        yield engine
    finally:
        await engine.__aexit__(None, None, None)


def check(url: str, *, create: bool = False) -> None:
    """Raise UsageError for a URL that names no store for a command, StoreUnreachable for a missing file.

    Nothing is opened.
    """
    try:
        parsed = parse(url)
        if parsed.kind != "sqlite":
            engines.shared(url)
    except UnsupportedEngine as error:
        raise UsageError(str(error)) from error
    if parsed.kind == "memory":
        raise UsageError(f"{parsed.shown} keeps tasks in the memory of one process: a command cannot see them")
    file = Path(parsed.file).absolute()
    if parsed.kind == "sqlite" and not create and not file.is_file():
        raise StoreUnreachable(
            f"there is no file {file}. The application makes it when it starts or adds its first task; if it has "
            "another one, give --url"
        )
