"""Log lines about unreadable rows in the store."""

import logging
from collections.abc import Mapping
from functools import partial

from afterwards.core.text import said_by
from afterwards.telemetry import writing
from afterwards.telemetry.writing import STORE

once = partial(writing.once, logger=STORE)


def set_aside(id: str, name: str, reason: str, *, extra: Mapping[str, object] | None = None) -> None:
    """Log a task that this code cannot read, once for each function and reason: there may be very many."""
    once(
        f"set aside {name} {reason}",
        logging.WARNING,
        f"task set aside: {name} ({id}): {reason}. It stays stored, and runs on a worker whose code can read it. "
        "Other tasks are not affected. `await tasks.check()` lists all such tasks, and `cancel` ends one",
        extra={"task": id, "task_name": name, **(extra or {})},
    )


def row_unreadable(what: str, name: str, error: BaseException) -> None:
    """Log, once, an unreadable row of another table than tasks. It is skipped and stays unchanged."""
    once(
        f"unreadable {what} {name}",
        logging.WARNING,
        f"the stored {what} {name} cannot be read and is skipped: {said_by(error)}",
    )
