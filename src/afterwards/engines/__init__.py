"""Where tasks are kept: one engine, one folder or file, imported when its URL is opened."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from afterwards.core.urls import parse, unsupported
from afterwards.engine import Engine
from afterwards.process_state import ProcessState

DEFAULT_URL = "sqlite:///afterwards.db"


def shared(url: str) -> Engine:
    """The one engine of this process for a URL, opened or not; two ways to write a URL mean the same engine."""
    known = _engines.by_url.get(url)
    if known is None:
        known = _engines.by_url.setdefault(_key(url), _engines.make(url))
        _engines.by_url[url] = known
    return known


@contextmanager
def replaced(make_instead: Callable[[str], Engine]) -> Iterator[None]:
    """Meanwhile every URL means another engine: tests never touch a developer's tasks."""
    with _engines.afresh():
        _engines.make = make_instead
        yield


def shown(url: str) -> str:
    """The URL as it may be shown: an absolute path, and no password."""
    parsed = parse(url)
    return f"sqlite:///{Path(parsed.file).absolute()}" if parsed.kind == "sqlite" else parsed.shown


def is_file(url: str) -> bool:
    """Whether tasks are kept in a file, and not in what stands for it in tests."""
    return _engines.make is _new and parse(url).kind == "sqlite"


def _key(url: str) -> str:
    """The same for each way to write a URL; other passwords are other engines."""
    parsed = parse(url)
    return shown(url) if parsed.kind == "sqlite" else parsed.text


def _new(url: str) -> Engine:
    """A new engine for a URL. Raises UnsupportedEngine."""
    parsed = parse(url)
    match parsed.kind:
        case "sqlite":
            from afterwards.engines.sqlite import SQLiteEngine

            return SQLiteEngine(Path(parsed.file).absolute())
        case "memory":
            from afterwards.engines.memory import MemoryEngine

            return MemoryEngine()
        case _:
            raise unsupported(parsed)


class Engines(ProcessState):
    """The engines of this process."""

    def __init__(self) -> None:
        self.by_url: dict[str, Engine] = {}  # by every way in which a URL was written
        self.make: Callable[[str], Engine] = _new


_engines = Engines()
