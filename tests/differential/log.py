"""What a server complains about, without the wording."""

import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any

# The exceptions that situations raise on purpose say so, and are told apart by what follows.
DELIBERATE = re.compile(r"on purpose: [\w ]+")
OURS = "afterwards"

SLOW = "has blocked the event loop"
"""Said of the machine as much as of the task: where tests run side by side, a process may get no turn for so long."""


class Log(logging.Handler):
    """Gathers warnings, errors and exceptions that nobody caught, from everywhere in the process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._complaints: set[str] = set()
        self._records: list[str] = []
        logging.getLogger().addHandler(self)
        warnings.showwarning = self._warn
        sys.unraisablehook = self._unraisable
        threading.excepthook = self._in_a_thread

    def complaints(self) -> list[str]:
        """Each complaint once, sorted: how often and when a failure is logged is nobody's promise."""
        return sorted(self._complaints)

    def in_full(self) -> str:
        """All that was logged, as it was worded, for those who look into a failure."""
        return "\n".join(self._records)

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(self.format(record))
        if SLOW in self._records[-1]:
            return
        deliberate = DELIBERATE.findall(self._records[-1])
        if deliberate:
            self._complaints.update(deliberate)
        elif record.exc_info and record.exc_info[1]:
            self._complaints.add(f"{record.levelname}: {_named(record.exc_info[1])}")
        elif _is_ours(record.name):
            self._complaints.add(f"{record.levelname} of afterwards")
        else:
            self._complaints.add(f"{record.levelname}: {record.getMessage()}")

    def _warn(self, message: Warning | str, category: type[Warning], *where: Any) -> None:
        ours = _is_ours(category.__module__) or OURS in str(message)
        self._complaints.add("WARNING of afterwards" if ours else f"{category.__name__}: {message}")

    def _unraisable(self, unraisable: Any) -> None:
        self._complaints.add(f"nobody could catch {unraisable.exc_value!r}")

    def _in_a_thread(self, args: Any) -> None:
        self._complaints.add(f"a thread ended with {args.exc_value!r}")


def _named(error: BaseException) -> str:
    """The class of the error; or whose it is, for the classes of our own errors are no matter of these tests."""
    if _is_ours(type(error).__module__) or _was_raised_by_us(error.__traceback__):
        return "an error of afterwards"
    return type(error).__name__


def _was_raised_by_us(traceback: TracebackType | None) -> bool:
    """Whether a handler called us, and it was raised there: our middleware is in the traceback of every handler."""
    modules = list(_modules(traceback))
    handlers = [place for place, module in enumerate(modules) if module.startswith("differential.situations.")]
    return bool(handlers) and any(_is_ours(module) for module in modules[handlers[-1] :])


def _modules(traceback: TracebackType | None) -> Iterator[str]:
    while traceback:
        yield traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == OURS
