"""Where tasks are kept: one engine, one folder or file, imported when its URL is opened."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from afterwards.core.errors import UnsupportedEngine
from afterwards.engine import Engine

DEFAULT_URL = "sqlite:///afterwards.db"

_FORMS = "give sqlite:///file.db (relative), sqlite:////folder/file.db (absolute) or memory://"


def shared(url: str) -> Engine:
    """The one engine of this process for a URL, opened or not; two ways to write a URL mean the same engine."""
    known = _shared.get(url)
    if known is None:
        known = _shared.setdefault(shown(url), _make(url))
        _shared[url] = known
    return known


@contextmanager
def replaced(make_instead: Callable[[str], Engine]) -> Iterator[None]:
    """Meanwhile every URL means another engine: tests never touch a developer's tasks."""
    global _shared, _make
    before = _shared, _make
    _shared, _make = {}, make_instead
    try:
        yield
    finally:
        _shared, _make = before


def shown(url: str) -> str:
    """The URL as it may be shown: an absolute path, and no password."""
    parts = urlsplit(url)
    if _kind(url) == "sqlite":
        return f"sqlite:///{_path(url)}"
    if parts.password is None:
        return url
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}{port}"))


def _new(url: str) -> Engine:
    """A new engine for a URL. Raises UnsupportedEngine."""
    match _kind(url):
        case "sqlite":
            from afterwards.engines.sqlite import SQLiteEngine

            return SQLiteEngine(_path(url))
        case "memory":
            from afterwards.engines.memory import MemoryEngine

            return MemoryEngine()
        case kind:
            raise UnsupportedEngine(f'there is no engine for "{kind}" in {shown(url)!r}: {_FORMS}')


def _kind(url: str) -> str:
    """The scheme without SQLAlchemy's driver: ``sqlite+aiosqlite`` means sqlite."""
    return urlsplit(url).scheme.split("+")[0]


def _path(url: str) -> Path:
    """The file of a SQLite URL, as SQLAlchemy reads it: three slashes and a relative path, four and an absolute one."""
    parts = urlsplit(url)
    if parts.netloc or parts.query or parts.path in ("", "/", "/:memory:"):
        raise UnsupportedEngine(f"{url!r} names no file: {_FORMS}")
    return Path(unquote(parts.path[1:])).absolute()


_shared: dict[str, Engine] = {}
_make: Callable[[str], Engine] = _new
