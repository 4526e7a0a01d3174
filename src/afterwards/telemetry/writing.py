"""Write log lines: whatever a handler, a filter or a formatter does, who writes one goes on."""

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from time import monotonic

from afterwards.core.process_state import ProcessState
from afterwards.core.text import frames_of, printable, said_by, shortened, type_name, written

log = logging.getLogger("afterwards")


class Told(ProcessState):
    """When this process wrote each line that is not to be repeated, or not soon: by its key, in monotonic seconds."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}


told = Told()


def write(
    level: int, message: str, *, extra: Mapping[str, object] | None = None, exc_info: BaseException | None = None
) -> None:
    """Write one line. Never raises: who logs goes on, whatever a filter, a handler or a formatter does."""
    try:
        if exc_info is None:
            log.log(level, message, extra=extra)
        elif log.isEnabledFor(level):
            _write_with(exc_info, level, message, extra)
    except BaseException as trouble:  # the user's code may raise anything
        _write_at_least(level, message, trouble)


def once(key: str, level: int, message: str) -> None:
    """Log a line the first time that its key comes up in this process."""
    now_and_then(key, inf, level, message)


def now_and_then(key: str, every: float, level: int, message: str) -> None:
    """Log a line unless one with its key was logged less than so many seconds ago."""
    now = monotonic()
    before = told.at.get(key)
    if before is None or now - before >= every:
        told.at[key] = now
        write(level, message)


def make_visible() -> None:
    """Show INFO lines on stderr where nobody configured logging: uvicorn configures only its own loggers."""
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
    """Write one line with an exception, as text where no formatter could format it."""
    with suppress(BaseException):  # the user's code, as above
        if printable(error):
            log.log(level, message, extra=extra, exc_info=(type(error), error, frames_of(error)))
            return
    log.log(level, f"{message}\n{shortened(written(error, frames_of(error)))}", extra=extra)


def _write_at_least(level: int, message: str, trouble: BaseException) -> None:
    """Write a line on stderr that the handlers of a log did not take."""
    with suppress(BaseException):  # there may be no stderr
        name = logging.getLevelName(level)
        sys.stderr.write(f"{name}: {message} (the log did not take this line: {type_name(trouble)})\n")


class _UvicornLike(logging.Formatter):
    """The look of uvicorn's own lines, so that ours do not stand out among them."""

    def format(self, record: logging.LogRecord) -> str:
        lead = f"{record.levelname}:".ljust(10)
        return lead + super().format(record)
