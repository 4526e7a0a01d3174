"""Recognises that the machine is short of something for a while: threads, descriptors, memory, room on a disk."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from afterwards.core.errors import AfterwardsError

SHORT = frozenset(
    number
    for name in ("ENOMEM", "EMFILE", "ENFILE", "ENOSPC", "EDQUOT", "ENOBUFS", "EFBIG")  # EAGAIN has other meanings, too
    if (number := getattr(errno, name, None)) is not None
)

NO_THREAD = "can't start new thread"
"""The message of the RuntimeError that Python raises when the system has no thread left."""

NO_ROOM = "No usable temporary directory found"
"""How the message of `tempfile` begins where it could not write to any folder."""

DEEPEST = 10
"""How many causes of an error are looked at."""


class Shortage(AfterwardsError, OSError):
    """The machine was short of something before a task function could begin. It may begin later."""


def is_shortage(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, says that the machine is short of something."""
    for _ in range(DEEPEST):
        if error is None:
            break
        if _says_so(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def beginning(doing: str) -> Iterator[None]:
    """Raise Shortage for an error that says that the machine is short of something."""
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
