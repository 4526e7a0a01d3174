"""Open the store that a command names by its URL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from afterwards import engines, environment
from afterwards.cli.errors import StoreUnreachable, UsageError
from afterwards.core.errors import EngineError, UnsupportedEngine
from afterwards.core.urls import parse
from afterwards.engine import Engine


def usual_url() -> str:
    """Return the URL that an application without one of its own uses here."""
    return environment.url() or engines.DEFAULT_URL


@asynccontextmanager
async def opened(url: str, *, create: bool = False) -> AsyncIterator[Engine]:
    """Open the store at a URL. A missing file is only made with ``create``.

    Raises UsageError for a URL that names no store for a command, StoreUnreachable if it cannot be opened.
    """
    check(url, create=create)
    try:
        engine = engines.shared(url)
        await engine.__aenter__()
    except EngineError as error:
        raise StoreUnreachable(f"the store {engines.shown(url)} cannot be opened: {error}") from error
    try:
        yield engine
    finally:
        await engine.__aexit__(None, None, None)


def check(url: str, *, create: bool = False) -> None:
    """Raise UsageError for a URL that names no store for a command. Nothing is opened."""
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
        raise UsageError(f"there is no file {file}: give the URL of the application's store, as sqlite:///{file.name}")
