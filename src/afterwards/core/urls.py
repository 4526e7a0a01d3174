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
_WORD_IN_TEXT = re.compile(r"[^\s\"<>]+")
_USER_IN_TEXT = re.compile(r"//[^/?#:@]*:(?!\d+(?:[/?#]|$))")  # not a host with its port, before a path with an @
_NAME_IN_TEXT = re.compile(r"(?:[?&]|(?<![^\s'\"])(?=passw))[^=&?\s\"'<>]*=")  # of a URL, or libpq's password=...
_VALUE_IN_TEXT = re.compile(r"[^&#\s\"'<>]*")
_SECRET_NAME = re.compile(r"password|passwd|secret|token|api_?key", re.IGNORECASE)
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


def without_passwords(text: str, hidden: str = "***") -> str:
    """Return a text without the passwords and the secret parameters of the URLs in it.

    It takes time in proportion to the text, whatever somebody has written.
    """
    shown = _WORD_IN_TEXT.sub(lambda word: _without_password(word[0], hidden), text) if "@" in text else text
    return _without_parameters(shown, hidden) if "=" in shown else shown


def _without_password(word: str, hidden: str) -> str:
    """Hide a password that ends before the last @ of a word: it may have any character but a space."""
    end = word.rfind("@")
    user = _USER_IN_TEXT.search(word, 0, end) if end > 0 else None
    return word if user is None else f"{word[: user.end()]}{hidden}{word[end:]}"


def _without_parameters(text: str, hidden: str) -> str:
    shown: list[str] = []
    done = 0
    for name in _NAME_IN_TEXT.finditer(text):
        if name.start() >= done and _SECRET_NAME.search(name[0]):
            shown += [text[done : name.end()], hidden]
            done = _VALUE_IN_TEXT.match(text, name.end()).end()  # type: ignore[union-attr]  # it may be empty
    return "".join([*shown, text[done:]])


def _postgres(text: str, shown: str, rest: str) -> EngineURL:
    """Parse the URL of a PostgreSQL database, also with the parameters of SQLAlchemy's drivers."""
    address, _, query = rest.partition("?")
    if not address.startswith("//"):
        raise UnsupportedEngine(f"{shown!r} has too few slashes: give postgresql://user:password@host/database")
    if "#" in rest:
        raise UnsupportedEngine(f"{shown!r} has a #: in a password it is written %23")
    if delimiter := _in_password(rest):
        raise UnsupportedEngine(
            f"{shown!r} has a {delimiter} before the @: in a password it is written {quote(delimiter, safe='')}"
        )
    given = _parameters(shown, query)
    schema = given.pop("schema", [None])[-1]
    pooled = given.pop("pgbouncer", [None])[-1]
    # Who has switched prepared statements off has a pooler.
    sizes = [value for name in _CACHE_SIZES for value in given.pop(name, [])]
    for name, translated in _ASYNCPG.items():
        if name in given:
            given.setdefault(translated, [_SSL.get(value, value) for value in given.pop(name)])
    if schema is not None and not _names_a_schema(schema):
        raise UnsupportedEngine(
            f"{shown!r}: schema={schema!r} is no name of a schema: give 1 to 63 bytes, printable and without %, {{ "
            "and }"
        )
    listed = {name: ",".join(values) for name, values in _with_ports_apart(given).items()}
    parameters = urlencode(listed, quote_via=quote, safe="/,")
    return EngineURL(
        kind="postgresql",
        server=f"postgresql:{address}{'?' * bool(parameters)}{parameters}",
        schema=schema,
        pooled=_flag(shown, "pgbouncer", pooled) if pooled is not None else True if "0" in sizes else None,
        text=text,
        shown=shown,
    )


def _in_password(rest: str) -> str | None:
    """Return the character that ends the address inside a password, where it is not escaped; None for no such one."""
    found = re.match(r"//([^/?@]*)([/?]).*@", rest, re.DOTALL)
    if found is None:
        return None
    ports = (host.rpartition(":")[2] for host in found[1].split(",") if ":" in host and not host.endswith("]"))
    return None if all(port == "" or port.isdigit() for port in ports) else found[2]


def _parameters(shown: str, query: str) -> dict[str, list[str]]:
    """Return the parameters of a URL. Only SQLAlchemy's ``host`` may be given several times."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise UnsupportedEngine(_not_utf8(shown)) from error
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        given.setdefault(name, []).append(value)
    for name, values in given.items():
        if len(values) > 1 and name not in _REPEATABLE:
            raise UnsupportedEngine(f"{shown!r}: {name} is given {len(values)} times: give it once")
    return given


def _names_a_schema(name: str) -> bool:
    """Return whether a name fits in PostgreSQL, and has none of the characters with a meaning in our statements."""
    return 1 <= len(name.encode()) <= 63 and name.isprintable() and not set("%{}") & set(name)


def _with_ports_apart(given: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the parameters with SQLAlchemy's ``host=name:port`` as libpq has it, in two lists."""
    hosts = given.get("host", [])
    named = [_HOST_AND_PORT.fullmatch(host) for host in hosts]
    if "port" in given or not any(named):
        return given
    return given | {
        "host": [found[1] if found else host for host, found in zip(hosts, named, strict=True)],
        "port": [found[2] if found else "" for found in named],
    }


_REPEATABLE = ("host", "port")
_HOST_AND_PORT = re.compile(r"([^/:,]+):(\d+)")
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
    try:
        file = unquote(path[3:], errors="strict")
    except UnicodeDecodeError as error:
        raise UnsupportedEngine(_not_utf8(shown)) from error
    if file in ("", "/", ":memory:", "/:memory:") or path == "//:memory:":
        raise UnsupportedEngine(f"{shown!r} names no file: {_FORMS}")
    if file.endswith("/"):
        raise UnsupportedEngine(f"{shown!r} names a folder: add the name of the file, as {shown + 'tasks.db'!r}")
    if "\0" in file:
        raise UnsupportedEngine(f"{shown!r} has a NUL in the name of its file: {_FORMS}")
    return file


def _not_utf8(shown: str) -> str:
    return f"{shown!r}: what its % signs say is not UTF-8, in which é is %C3%A9 (a % sign itself is written %25)"


def _for_path(path: str) -> str:
    """Return a hint how to write a path as a URL."""
    if not path or "@" in path or "://" in path:
        return _FORMS
    if path.lstrip("/") == ":memory:":
        return "give memory://"
    kind = "absolute" if path.startswith("/") else "relative"
    return f"give sqlite:///{path} ({kind})"
