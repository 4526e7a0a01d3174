"""Write log lines without ever raising, and limit how often a line is repeated."""

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from time import monotonic

from afterwards.core.process_state import ProcessState
from afterwards.core.text import frames_of, printable, said_by, shortened, type_name, written

log = logging.getLogger("afterwards")


class LastWritten(ProcessState):
    """The time of the last line for each key, in monotonic seconds."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}


last_written = LastWritten()


def write(
    level: int, message: str, *, extra: Mapping[str, object] | None = None, exc_info: BaseException | None = None
) -> None:
    """Write one line. Never raises, whatever a filter, handler or formatter does."""
    try:
        if exc_info is None:
            log.log(level, message, extra=extra)
        elif log.isEnabledFor(level):
            _write_with(exc_info, level, message, extra)
    except BaseException as trouble:  # the user's code may raise anything
        _write_at_least(level, message, trouble)


def once(key: str, level: int, message: str) -> None:
    """Write a line if its key is new in this process."""
    now_and_then(key, inf, level, message)


def now_and_then(key: str, every: float, level: int, message: str) -> None:
    """Write a line unless one with its key was written less than ``every`` seconds ago."""
    now = monotonic()
    before = last_written.at.get(key)
    if before is None or now - before >= every:
        last_written.at[key] = now
        write(level, message)


def make_visible() -> None:
    """Show INFO lines on stderr if logging is not configured: uvicorn configures only its own loggers."""
    if log.hasHandlers():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_UvicornLike())
    log.addHandler(handler)
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)


def described(error: BaseException | None) -> str:
    return "no reason given" if error is None else f"{type_name(error)}: {said_by(error)}"


def _write_with(error: BaseException, level: int, message: str, extra: Mapping[str, object] | None) -> None:
    """Write one line with an exception, as text if logging could not format it."""
    with suppress(BaseException):  # the user's code, as above
        if printable(error):
            log.log(level, message, extra=extra, exc_info=(type(error), error, frames_of(error)))
            return
    log.log(level, f"{message}\n{shortened(written(error, frames_of(error)))}", extra=extra)


def _write_at_least(level: int, message: str, trouble: BaseException) -> None:
    """Write a line to stderr when the handlers failed."""
    with suppress(BaseException):  # there may be no stderr
        name = logging.getLevelName(level)
        sys.stderr.write(f"{name}: {message} (logging this line raised {type_name(trouble)})\n")


class _UvicornLike(logging.Formatter):
    """Formats lines like uvicorn's own."""

    def format(self, record: logging.LogRecord) -> str:
        lead = f"{record.levelname}:".ljust(10)
        return lead + super().format(record)
