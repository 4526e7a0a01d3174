"""Translate the driver's errors."""

import re

import psycopg

from afterwards.core.errors import AfterwardsError, EngineError, EngineUnavailable, RefusedValue
from afterwards.core.shortage import is_shortage

REPEATED = frozenset({"40001", "40P01", "23505", "26000"})
"""Errors after which the transaction is repeated: it crossed another one, or somebody deallocated its statements."""

PASSES = {
    "25006": "the server is a standby, or became one, and cannot be written: give the address of the primary, or "
    "several hosts with target_session_attrs=read-write",
    "25P03": "the server ended a transaction that stood still",
    "53100": "the server's disk is full",
    "53200": "the server has no memory left",
    "53300": "the server has too many connections",
    "55P03": "another transaction holds a lock that this one needs: end it (pg_stat_activity shows it)",
    "57014": "the server took too long",
    "57P01": "the server is shutting down",
    "57P02": "the server was shut down after a crash",
    "57P03": "the server is starting up or shutting down",
}
"""Conditions that pass; the caller may try again."""

PASSING_CLASSES = ("08", "40", "53", "57", "58")

LASTS = {
    "3D000": "there is no such database: create it, or correct the URL",
    "3F000": "there is no such schema: create it, or correct ?schema= in the URL",
    "42501": "the user is not permitted",
    "42P01": "one of the tables is missing: run `afterwards migrate`",
    "42703": "one of the columns is missing: run `afterwards migrate`",
}

BROKEN = frozenset({"25006", "25P03", "57P01", "57P02", "57P03"})
"""Errors after which a connection is not used again."""

# Errors of a connection attempt have no code, only text, which is English if the server's lc_messages says so.
AT_CONNECTING = (
    (
        r"password authentication failed|no password supplied",
        "the server refused this user or password: correct them in the URL",
    ),
    (r"role .* does not exist", "the server knows no such user: create it, or correct the URL"),
    (r"database .* does not exist", "there is no such database: create it (createdb), or correct the URL"),
    (r"no pg_hba\.conf entry", "the server lets nobody in from here by this user and database (pg_hba.conf)"),
    (r"permission denied for database", "the user may not connect to the database: GRANT CONNECT ON DATABASE to it"),
    (r"invalid (port number|integer value|\S+ value)|bad value for", "correct the URL"),
    (r"server does not support SSL|SSL error|certificate", "the server and sslmode in the URL do not fit together"),
)

PASSES_AT_CONNECTING = re.compile(
    r"too many|connection slots|starting up|shutting down|recovery|not accepting|not yet accepting|terminating"
)
"""English texts of conditions that pass, though the server had asked for the password before."""

REPORT = re.compile(r"\w:  \S")
"""The form of an error that the server reports, in any language: the driver writes two spaces after a colon."""


def may_be_repeated(error: Exception) -> bool:
    """Return True if the transaction was rolled back because it crossed another one."""
    return isinstance(error, psycopg.Error) and error.sqlstate in REPEATED


def is_lost(error: Exception) -> bool:
    """Return True if the connection was lost."""
    return isinstance(error, psycopg.OperationalError) and (error.sqlstate is None or error.sqlstate in BROKEN)


def translated(error: Exception, shown: str) -> Exception:
    """Return the error that callers see: ours for a fault of the store, the same object for anything else."""
    match error:
        case AfterwardsError():
            return error
        case UnicodeEncodeError() | psycopg.DataError():
            return _caused(RefusedValue("a value", f" cannot be stored: {_first_line(error)}"), error)
        case psycopg.Error():
            return _caused(_from_driver(error, shown), error)
        case OSError() | RuntimeError() if isinstance(error, OSError) or is_shortage(error):
            return _caused(EngineUnavailable(f"{shown}: {error}"), error)
        case _:
            return error


def translated_at_connecting(error: Exception, shown: str, *, is_first: bool = True) -> Exception:
    """Return the error for a connection that could not be made; ``is_first`` if none could be made before."""
    if not isinstance(error, psycopg.Error) or error.sqlstate is not None:
        return translated(error, shown)
    said = str(error).strip()
    if advice := _advice(error, said, is_first):
        return _caused(EngineError(f"{shown}: {advice} ({_reason(said)})"), error)
    return _caused(EngineUnavailable(f"{shown} cannot be reached: {_reason(said)}"), error)


def crossed(shown: str) -> EngineUnavailable:
    """Return the error for a transaction that crossed others at every try."""
    return EngineUnavailable(f"{shown}: other transactions store the same tasks or keys all the time")


def _advice(error: psycopg.Error, said: str, is_first: bool) -> str | None:
    """Return what to do about a refusal that does not pass; None for one that may pass."""
    for pattern, advice in AT_CONNECTING:
        if re.search(pattern, said):
            return advice
    if error.pgconn is None or PASSES_AT_CONNECTING.search(said):
        return None
    if error.pgconn.needs_password:
        return "the server asks for a password: write it in the URL"
    # A text in another language. If the same URL was good before, the server has no room, or is ending.
    if is_first and error.pgconn.used_password and REPORT.search(said):
        return "the server refused this user, password or database: correct them in the URL"
    return None


def _from_driver(error: psycopg.Error, shown: str) -> EngineError:
    code = error.sqlstate
    said = _first_line(error)
    if code is None:
        lost = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
        return (EngineUnavailable if lost else EngineError)(f"{shown}: the connection was lost ({said})")
    if code in PASSES or code[:2] in PASSING_CLASSES:
        return EngineUnavailable(f"{shown}: {PASSES.get(code, 'the server cannot do it now')} ({said})")
    return EngineError(f"{shown}: {LASTS.get(code, 'the server refused')} ({said})")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _reason(said: str) -> str:
    """Return the last line that is neither a detail nor a hint: the lines before it are about the same host."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not _ASIDE.match(line)]
    return lines[-1] if lines else "no reason was given"


_ASIDE = re.compile(r"\s|DETAIL:|HINT:")


def _caused(ours: Exception, error: Exception) -> Exception:
    ours.__cause__ = error
    return ours
