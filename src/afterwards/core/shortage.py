"""Recognise errors that mean a temporary shortage of a system resource: threads, descriptors, memory, disk space."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from afterwards.core.errors import AfterwardsError

SHORT = frozenset(
    number
    for name in (
        "ENOMEM",
        "EMFILE",
        "ENFILE",
        "ENOSPC",
        "EDQUOT",
        "ENOBUFS",
        "EFBIG",
    )  # not EAGAIN, which has other meanings
    if (number := getattr(errno, name, None)) is not None
)

NO_THREAD = "can't start new thread"
"""The message of Python's RuntimeError when the system has no thread left."""

NO_ROOM = "No usable temporary directory found"
"""The beginning of the message of `tempfile` when it cannot write to any folder."""

DEEPEST = 10
"""The number of an error's causes that are examined."""


class Shortage(AfterwardsError, OSError):
    """A system resource was exhausted before a task function could start. It may start later."""


class LongShortage(Shortage):
    """A shortage that was waited for so long that the task is given back without another try here."""


def is_shortage(error: BaseException | None) -> bool:
    """Return True if an error, or one of its causes, means that a system resource is exhausted."""
    for _ in range(DEEPEST):
        if error is None:
            break
        if _says_so(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def beginning(doing: str) -> Iterator[None]:
    """Translate errors that mean an exhausted resource into Shortage."""
    try:
        yield
    except Shortage:
        raise
    except Exception as error:  # of any library
        if is_shortage(error):
            raise Shortage(f"could not {doing}: {error}") from error
        raise


def _says_so(error: BaseException) -> bool:
    if isinstance(error, OSError):
        no_room = (error.strerror or "").startswith(NO_ROOM)
        return error.errno in SHORT or no_room or isinstance(error, Shortage)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and error.args == (NO_THREAD,))
