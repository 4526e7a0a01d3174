"""Write log lines without ever raising, and limit how often a line is repeated."""

import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic

from afterwards.core.errors import BrokerUnavailable, EngineUnavailable
from afterwards.core.process_state import ProcessState
from afterwards.core.redaction import HIDDEN, redactor_of
from afterwards.core.task import Task
from afterwards.core.text import frames_of, printable, said_by, shortened, type_name, written

log = logging.getLogger("afterwards")
"""The parent of all our loggers: its level and its handlers apply to all of them."""

TASKS, REQUESTS, STORE, WORKER, DASHBOARD = (
    log.getChild(area) for area in ("tasks", "requests", "store", "worker", "dashboard")
)
"""The loggers, by the subject of their lines."""


class LastWritten(ProcessState):
    """The time of the last line for each key, in monotonic seconds."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}


last_written = LastWritten()


def write(
    level: int,
    message: str,
    *,
    logger: logging.Logger = log,
    extra: Mapping[str, object] | None = None,
    exc_info: BaseException | None = None,
    about: Task | None = None,
) -> None:
    """Write one line, with the fields of the task it is about, and without its secrets.

    Never raises, whatever a filter, handler or formatter does.
    """
    shown = HIDDEN if about is not None else message
    try:
        if not logger.isEnabledFor(level):
            return
        hide, fields = _unchanged, dict(extra or {})
        if about is not None:
            hide, fields = redactor_of(about).text, _fields_of(about) | fields
        shown = hide(message)
        if exc_info is None:
            logger.log(level, shown, extra=fields)
        else:
            _write_with(exc_info, partial(logger.log, level, extra=fields), shown, hide)
    except BaseException as trouble:  # the user's code may raise anything
        _write_at_least(level, shown, trouble)


def once(
    key: str,
    level: int,
    message: str,
    *,
    logger: logging.Logger = log,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Write a line if its key is new in this process."""
    now_and_then(key, inf, level, message, logger=logger, extra=extra)


def now_and_then(
    key: str,
    every: float,
    level: int,
    message: str,
    *,
    logger: logging.Logger = log,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Write a line unless one with its key was written less than ``every`` seconds ago."""
    now = monotonic()
    before = last_written.at.get(key)
    if before is None or now - before >= every:
        last_written.at[key] = now
        write(level, message, logger=logger, extra=extra)


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


def unless_away(error: BaseException) -> BaseException | None:
    """Return an exception to log with its traceback; None if the store or a broker is away.

    It would be the same each time.
    """
    return None if isinstance(error, (EngineUnavailable, BrokerUnavailable)) else error


def _write_with(error: BaseException, log_line: Callable[..., None], message: str, hide: Callable[[str], str]) -> None:
    """Write one line with an exception, as text if logging could not format it, or would show a secret."""
    with suppress(BaseException):  # the user's code, as above
        if printable(error) and (hide is _unchanged or not shows_secret(error, hide)):
            log_line(message, exc_info=(type(error), error, frames_of(error)))
            return
    log_line(f"{message}\n{hide(shortened(written(error, frames_of(error))))}")


def shows_secret(error: BaseException, hide: Callable[[str], str]) -> bool:
    """Return True if the traceback of an exception has a text that is hidden."""
    text = written(error, frames_of(error))
    return hide(text) != text


def _unchanged(text: str) -> str:
    return text


def _fields_of(task: Task) -> dict[str, object]:
    """Return the fields of each line about a task."""
    return {"task": task.id, "task_name": task.name, "attempt": task.attempt, "state": str(task.state)}


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
