"""Parse the URL of an engine, and hide its password."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode

from afterwards.core.errors import UnsupportedEngine

_FORMS = (
    "give sqlite:///file.db (relative), sqlite:////folder/file.db (absolute), postgresql://user:password@host/database "
    "or memory://"
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.-]*)(?:\+[A-Za-z0-9_.-]+)?:(.*)", re.DOTALL)
_PASSWORD = re.compile(r"(//[^/?#:@]*):.*@", re.DOTALL)
_PASSWORD_IN_TEXT = re.compile(r"(//[^/?#:@\s]*):\S*@")
_SECRET_IN_TEXT = re.compile(
    r"((?:^|[?&\s'\"])[^=&?\s]*(?:password|passwd|secret|token)[^=&\s]*=)[^&#\s]*", re.IGNORECASE
)
_SECRET = re.compile(r"((?:^|[?&])[^=&?]*(?:password|passwd|secret|token)[^=&]*=)[^&#]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineURL:
    """A parsed URL."""

    kind: str  # the scheme in lower case, without SQLAlchemy's driver: ``sqlite+aiosqlite`` means sqlite
    file: str = ""  # the path of sqlite's file as written, relative or absolute
    server: str = ""  # a postgresql URL as libpq reads it, without the parameters that are ours
    schema: str | None = None  # where the tables are in a postgresql database; None: where the user's tables are
    pooled: bool | None = None  # behind PgBouncer or another pooler; None: the engine finds out
    text: str  # the whole URL, with its password
    shown: str  # the URL without its password, for logs


def parse(url: str) -> EngineURL:
    """Parse a URL. Raises UnsupportedEngine, whose message says what to write instead."""
    text = url.strip()
    shown = without_password(text)
    if any(not char.isprintable() for char in text):
        raise UnsupportedEngine(f"the URL {shown!r} has an unprintable character: {_FORMS}")
    found = _SCHEME.fullmatch(text)
    if found is None or re.match(r"[A-Za-z]:[\\/]", text):
        raise UnsupportedEngine(f"{shown!r} is not a URL: {_for_path(text)}")
    kind, rest = found[1].lower(), found[2]
    match kind:
        case "sqlite":
            return EngineURL(kind=kind, file=_file(shown, rest), text=text, shown=shown)
        case "postgresql" | "postgres":
            return _postgres(text, shown, rest)
        case "memory" if not rest.startswith("//"):
            raise UnsupportedEngine(f"{shown!r} has no slashes: give memory://")
        case _:
            return EngineURL(kind=kind, text=text, shown=shown)


def unsupported(url: EngineURL) -> UnsupportedEngine:
    """Return the error for a URL that has no engine."""
    return UnsupportedEngine(f'there is no engine for "{url.kind}" in {url.shown!r}: {_FORMS}')


def without_password(url: str) -> str:
    """Return the URL with ``***`` in place of each password and secret parameter."""
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


def without_passwords(text: str) -> str:
    """Return a text with ``***`` in place of the passwords of the URLs in it. A URL ends with a space."""
    return _SECRET_IN_TEXT.sub(r"\1***", _PASSWORD_IN_TEXT.sub(r"\1:***@", text))


def _postgres(text: str, shown: str, rest: str) -> EngineURL:
    """Parse the URL of a PostgreSQL database, also with the parameters of SQLAlchemy's drivers."""
    address, _, query = rest.partition("?")
    if not address.startswith("//"):
        raise UnsupportedEngine(f"{shown!r} has too few slashes: give postgresql://user:password@host/database")
    if "#" in rest:
        raise UnsupportedEngine(f"{shown!r} has a #: in a password it is written %23")
    given: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        given.setdefault(name, []).append(value)
    schema = given.pop("schema", [None])[-1]
    pooled = given.pop("pgbouncer", [None])[-1]
    # Who has switched prepared statements off has a pooler.
    sizes = [value for name in _CACHE_SIZES for value in given.pop(name, [])]
    for name, translated in _ASYNCPG.items():
        if name in given:
            given.setdefault(translated, [_SSL.get(value, value) for value in given.pop(name)])
    if schema is not None and not 1 <= len(schema.encode()) <= 63:
        raise UnsupportedEngine(f"{shown!r}: schema={schema!r} is no name of a schema: give one of 1 to 63 bytes")
    parameters = urlencode({name: ",".join(values) for name, values in given.items()}, quote_via=quote, safe="/,")
    return EngineURL(
        kind="postgresql",
        server=f"postgresql:{address}{'?' * bool(parameters)}{parameters}",
        schema=schema,
        pooled=_flag(shown, "pgbouncer", pooled) if pooled is not None else True if "0" in sizes else None,
        text=text,
        shown=shown,
    )


_ASYNCPG = {"ssl": "sslmode"}
_SSL = {"true": "require", "True": "require", "1": "require", "false": "disable", "False": "disable", "0": "disable"}
_CACHE_SIZES = ("prepared_statement_cache_size", "statement_cache_size")
_FLAGS = {"true": True, "1": True, "on": True, "yes": True, "false": False, "0": False, "off": False, "no": False}


def _flag(shown: str, name: str, value: str) -> bool:
    if value.lower() not in _FLAGS:
        raise UnsupportedEngine(f"{shown!r}: {name}={value!r}: give true or false")
    return _FLAGS[value.lower()]


def _file(shown: str, rest: str) -> str:
    """Return the path in a SQLite URL as SQLAlchemy reads it: relative after 3 slashes, absolute after 4."""
    path, question, parameters = rest.partition("?")
    if question:
        raise UnsupportedEngine(
            f"{shown!r} has parameters, and sqlite takes none here: leave out {without_password('?' + parameters)!r} "
            "(a question mark in a file's name is written %3F)"
        )
    if not path.startswith("//"):
        raise UnsupportedEngine(f"{shown!r} has too few slashes: {_for_path(path)}")
    if not path.startswith("///") and path not in ("//", "//:memory:"):
        raise UnsupportedEngine(f"{shown!r} has too few slashes, and names a host: {_for_path(path[2:])}")
    file = unquote(path[3:])
    if file in ("", "/", ":memory:", "/:memory:") or path == "//:memory:":
        raise UnsupportedEngine(f"{shown!r} names no file: {_FORMS}")
    if file.endswith("/"):
        raise UnsupportedEngine(f"{shown!r} names a folder: add the name of the file, as {shown + 'tasks.db'!r}")
    if "\0" in file:
        raise UnsupportedEngine(f"{shown!r} has a NUL in the name of its file: {_FORMS}")
    return file


def _for_path(path: str) -> str:
    """Return a hint how to write a path as a URL."""
    if not path or "@" in path or "://" in path:
        return _FORMS
    kind = "absolute" if path.startswith("/") else "relative"
    return f"give sqlite:///{path} ({kind})"
