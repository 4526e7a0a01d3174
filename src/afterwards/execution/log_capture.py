"""Capture what is logged during attempts, for their records.

``Logger.callHandlers`` is replaced, as Sentry's SDK does, because a handler at the root logger would change what users
see: Python's handler of last resort and ``basicConfig`` do their work only while there is no handler, and loggers that
do not propagate would be missed. What a level or a filter of a logger rejects never comes here.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from afterwards.core.task import LogLine
from afterwards.core.text import NAME_LIMIT, frames_of, shortened, text_of, written
from afterwards.execution.context import current

MESSAGE_LIMIT = 16 * 1024
"""The most bytes of UTF-8 in one line, with the text of its exception."""

OURS = "afterwards"
"""The logger of this package. Its lines about an attempt repeat what the record says."""

_changing = threading.Lock()  # workers on several event loops may begin and end at the same time


@contextmanager
def capturing() -> Iterator[None]:
    """Capture the log lines of attempts inside the block. Blocks that overlap share one capture."""
    with _changing:
        capture = _installed() or _Capture()
        capture.users += 1
    try:
        yield
    finally:
        with _changing:
            capture.users -= 1
            capture.remove_if_unused()


def line_of(record: logging.LogRecord, attempt: int) -> LogLine:
    """Return a log record as a line that every engine can store. Never raises for what users' objects do."""
    return LogLine(
        attempt=attempt,
        at=datetime.fromtimestamp(record.created, UTC),
        level=_storable(record.levelname, NAME_LIMIT),
        logger=_storable(record.name, NAME_LIMIT),
        message=_storable("\n".join(_texts(record)), MESSAGE_LIMIT),
    )


class _Capture:
    """The replacement of ``Logger.callHandlers``. Without users it only calls the original."""

    def __init__(self) -> None:
        self.users = 0
        self._before = before = logging.Logger.callHandlers
        capture = self

        def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
            try:
                before(self, record)
            finally:
                if capture.users:
                    _capture(record)  # as the handlers' filters have left it: some of them remove secrets

        call_handlers.capture = capture  # type: ignore[attr-defined]  # how the next worker finds it
        self._replacement = call_handlers
        logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign]

    def remove_if_unused(self) -> None:
        """Put the original back, unless somebody has replaced ours meanwhile."""
        if not self.users and logging.Logger.callHandlers is self._replacement:
            logging.Logger.callHandlers = self._before  # type: ignore[method-assign]


def _installed() -> _Capture | None:
    """Return the capture in use. ``functools.wraps`` copies the attribute to whatever replaces ours."""
    found: _Capture | None = getattr(logging.Logger.callHandlers, "capture", None)
    return found


def _capture(record: logging.LogRecord) -> None:
    attempting = current.get()
    if attempting is None or record.name == OURS or record.name.startswith(f"{OURS}."):
        return
    with suppress(BaseException):  # a record made by hand may hold anything
        context = attempting.context
        context.logs.add(line_of(record, context.attempt))


def _texts(record: logging.LogRecord) -> Iterator[str]:
    """Yield the record's message, its exception and its stack, as a formatter would write them."""
    try:
        yield record.getMessage()
    except BaseException:  # the arguments do not fit the message, or their `__str__` raised
        yield text_of(record.msg)
    if record.exc_info and (error := record.exc_info[1]) is not None:
        yield written(error, record.exc_info[2] or frames_of(error)).rstrip("\n")
    if record.stack_info:
        yield record.stack_info


def _storable(text: str, limit: int) -> str:
    """Return a text without what some store refuses: NUL characters and lone surrogates."""
    return shortened(text, limit).replace("\0", "\N{REPLACEMENT CHARACTER}")
