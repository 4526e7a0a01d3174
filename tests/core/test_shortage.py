"""Which errors say that the machine is short of something."""

import errno

import pytest

from afterwards.core.shortage import DEEPEST, NO_ROOM, NO_THREAD, Shortage, beginning, is_shortage


def raised_from(error: BaseException, times: int = 1) -> BaseException:
    for _ in range(times):
        above = ValueError("above")
        above.__cause__, error = error, above
    return error


def raised_while_handling(error: BaseException) -> BaseException:
    above = ValueError("above")
    above.__context__ = error
    return above


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError(NO_THREAD),
        MemoryError(),
        FileNotFoundError(errno.ENOENT, NO_ROOM + " in ['/tmp']"),
        Shortage("no process could be started"),
        raised_from(FULL),
        raised_while_handling(FULL),
    ],
    ids=repr,
)
def test_a_shortage_is_recognised(error: BaseException) -> None:
    assert is_shortage(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOENT, "No such file or directory"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        RuntimeError("no thread of thought"),
        ValueError(NO_THREAD),
        raised_from(FULL, DEEPEST),
        None,
    ],
    ids=repr,
)
def test_other_errors_are_none(error: BaseException | None) -> None:
    assert not is_shortage(error)


def test_a_shortage_at_the_beginning_is_raised_as_one() -> None:
    with pytest.raises(Shortage, match=r"could not open it: .*No space left"), beginning("open it"):
        raise FULL


@pytest.mark.parametrize("error", [ValueError("other"), Shortage("told already")], ids=repr)
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error), match=f"^{error}$"), beginning("open it"):
        raise error
