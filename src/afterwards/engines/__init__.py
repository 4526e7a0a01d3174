"""The engines: each is one folder or file, imported when its URL is opened."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os.path import realpath
from pathlib import Path
from urllib.parse import quote

from afterwards.core.errors import UnsupportedEngine
from afterwards.core.process_state import ProcessState
from afterwards.core.urls import parse, unsupported
from afterwards.engine import Engine

DEFAULT_URL = "sqlite:///afterwards.db"


def shared(url: str) -> Engine:
    """Return this process's one engine for a URL, opened or not, however the URL is written."""
    known = _engines.by_url.get(url)
    if known is None:
        known = _engines.by_url.setdefault(_key(url), _engines.make(url))
        _engines.by_url[url] = known
    return known


@contextmanager
def replaced(make_instead: Callable[[str], Engine]) -> Iterator[None]:
    """Replace the engine of every URL inside the block, so that tests never touch a developer's tasks."""
    with _engines.afresh():
        _engines.make = make_instead
        yield


def shown(url: str) -> str:
    """Return the URL as it may be shown: with an absolute path and no password."""
    parsed = parse(url)
    return f"sqlite:///{Path(parsed.file).absolute()}" if parsed.kind == "sqlite" else parsed.shown


def absolute(url: str) -> str:
    """Return a URL that means the same store after the process has changed its working folder.

    A URL that cannot be read is returned as it is. It is refused when it is opened.
    """
    try:
        parsed = parse(url)
    except UnsupportedEngine:
        return url
    return f"sqlite:///{quote(str(Path(parsed.file).absolute()))}" if parsed.kind == "sqlite" else url


def is_shared(url: str) -> bool:
    """Return whether tasks are kept where other processes find them, and not in a test's memory."""
    return not are_replaced() and parse(url).kind in ("sqlite", "postgresql")


def is_file(url: str) -> bool:
    """Return whether tasks are kept in a file."""
    return parse(url).kind == "sqlite"


def are_replaced() -> bool:
    """Return whether a test keeps the tasks of every URL in memory."""
    return _engines.make is not _new


def _key(url: str) -> str:
    """Return one key for all ways to write a URL or to reach a file; another password is another engine."""
    parsed = parse(url)
    return f"sqlite:{realpath(parsed.file)}" if parsed.kind == "sqlite" else parsed.text


def _new(url: str) -> Engine:
    """Return a new engine for a URL. Raises UnsupportedEngine."""
    parsed = parse(url)
    match parsed.kind:
        case "sqlite":
            from afterwards.engines.sqlite import SQLiteEngine

            return SQLiteEngine(Path(parsed.file).absolute())
        case "memory":
            from afterwards.engines.memory import MemoryEngine

            return MemoryEngine()
        case "postgresql":
            try:
                import psycopg  # noqa: F401
            except ImportError as error:
                raise UnsupportedEngine(
                    f"{parsed.shown!r} needs the driver psycopg ({error}): pip install 'afterwards[postgres]'"
                ) from None
            from afterwards.engines.postgres import PostgresEngine

            return PostgresEngine(url)
        case _:
            raise unsupported(parsed)


class Engines(ProcessState):
    """The engines of this process."""

    def __init__(self) -> None:
        self.by_url: dict[str, Engine] = {}  # by every form in which a URL was written
        self.make: Callable[[str], Engine] = _new


_engines = Engines()
