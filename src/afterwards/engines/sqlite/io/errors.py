"""Translate the driver's errors."""

import sqlite3

from afterwards.core.errors import EngineError, EngineUnavailable, RefusedValue

LOCKED = "another program has locked the file, or this application has an open transaction that has written to it"

UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_PROTOCOL: LOCKED,
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "reading or writing the disk failed",
    sqlite3.SQLITE_READONLY: "the file is read-only",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_PERM: "the file cannot be opened",
    sqlite3.SQLITE_AUTH: "the file cannot be opened",
    sqlite3.SQLITE_NOMEM: "memory is exhausted",
    sqlite3.SQLITE_INTERRUPT: "it was interrupted",
}
"""Temporary conditions; the caller may try again."""

REFUSED = {
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore a copy, or move it away",
    sqlite3.SQLITE_NOTADB: "the file is not a database: restore a copy, or move it away",
    sqlite3.SQLITE_TOOBIG: "a value is too large",
}

BROKEN = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }
)
"""Errors after which a connection may go on failing when the file works again."""


def is_locked(error: Exception) -> bool:
    """Return True if another connection had the file locked for as long as the driver waited."""
    return isinstance(error, sqlite3.Error) and _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_broken_by(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and _code(error) in BROKEN


def translated(error: Exception, path: object) -> Exception:
    """Return the error that callers see: ours for a fault of the store, the same object for anything else."""
    match error:
        case sqlite3.Error():
            return _from_driver(error, path)
        case OverflowError() | UnicodeEncodeError():
            return RefusedValue("a value", f" cannot be stored: {error}").with_traceback(error.__traceback__)
        case EngineError():  # a new one for each caller, because raising an error writes to it
            return _caused(type(error)(*error.args), error)
        case OSError():
            return _caused(EngineUnavailable(f"{path}: {error}"), error)
        case _:
            return error


def _from_driver(error: sqlite3.Error, path: object) -> EngineError:
    code = _code(error)
    if code in UNAVAILABLE:
        return _caused(EngineUnavailable(f"{path}: {UNAVAILABLE[code]} ({error})"), error)
    return _caused(EngineError(f"{path}: {REFUSED.get(code, 'SQLite refused')} ({error})"), error)


def _code(error: sqlite3.Error) -> int:
    """Return the primary code. Errors of the sqlite3 module itself have none."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def _caused(ours: EngineError, error: Exception) -> EngineError:
    ours.__cause__ = error
    return ours
