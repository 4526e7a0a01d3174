"""Log lines about stored rows that cannot be read."""

import logging

from afterwards.core.text import said_by
from afterwards.telemetry.writing import once


def set_aside(id: str, name: str, reason: str) -> None:
    """Tell of a task that this code cannot read: once for each function and reason, for there may be very many."""
    once(
        f"set aside {name} {reason}",
        logging.WARNING,
        f"task set aside: {name} ({id}): {reason}. All other tasks go on. It stays stored, and runs when a worker "
        "comes whose code can read it. `await tasks.check()` lists all such tasks, and `cancel` ends one",
    )


def row_unreadable(what: str, name: str, error: BaseException) -> None:
    """Tell once of a row that is no task's. It is passed over, and stays as it is."""
    once(
        f"unreadable {what} {name}",
        logging.WARNING,
        f"the stored {what} {name} cannot be read, and is passed over: {said_by(error)}",
    )
