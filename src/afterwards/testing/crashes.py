"""Simulated crashes of a process for tests: ``crash_at`` and ``run_twice``."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Literal

from afterwards.core.errors import InvalidOption
from afterwards.core.settling import Succeeded
from afterwards.tasks.function import TaskFunction
from afterwards.testing.inline import memory, under_test
from afterwards.testing.inline_worker import CrashesAt, CrashPoint


class Crash(StrEnum):
    """The point of an attempt at which its process crashes."""

    START = "start"  # the attempt is counted, and the function is not called
    END = "end"  # the function has returned or raised, and the outcome is not recorded


@contextmanager
def crash_at(
    function: TaskFunction[Any, Any, Any], at: Crash | Literal["start", "end"], *, times: int = 1
) -> Iterator[None]:
    """Let the first ``times`` attempts of each of the function's tasks crash, inside the block.

    The tasks are reclaimed at once, as another worker does when a lease has ended, and the next attempt runs. The
    fourth crash ends a task as failed; with ``rerun_after_crash=False`` the first one does. A crash raises nothing into
    the test. Raises InvalidOption.
    """
    where, name = _point(at), _name(function, "crash_at")
    if isinstance(times, bool) or not isinstance(times, int) or times < 1:
        raise InvalidOption(f"times={times!r}: give the number of attempts that crash, at least 1")

    def here(point: CrashPoint) -> bool:
        return point.function.name == name and (point.outcome is None) == (where is Crash.START)

    with _crashing(_each_task(here, times)):
        yield


@contextmanager
def run_twice(*functions: TaskFunction[Any, Any, Any]) -> Iterator[None]:
    """Run every task that succeeds a second time, inside the block, as after a crash before its success was recorded.

    Tasks run at least once, so assert afterwards that the effect has happened once. ``functions`` restricts it to their
    tasks. Tasks with ``rerun_after_crash=False`` run once. Raises InvalidOption.
    """
    names = {_name(function, "run_twice") for function in functions}
    for function in functions:
        if not function.settings.rerun_after_crash:
            raise InvalidOption(
                f"run_twice({function.name}): with rerun_after_crash=False it never runs again, "
                'but ends as failed: use crash_at(..., "end")'
            )

    def here(point: CrashPoint) -> bool:
        asked = not names or point.function.name in names
        return asked and isinstance(point.outcome, Succeeded) and point.task.rerun_after_crash

    with _crashing(_each_task(here, times=1)):
        yield


@contextmanager
def _crashing(crashes: CrashesAt) -> Iterator[None]:
    memory()  # raises outside of such tests
    under_test.crashes.append(crashes)
    try:
        yield
    finally:
        under_test.crashes.remove(crashes)


def _each_task(here: Callable[[CrashPoint], bool], times: int) -> CrashesAt:
    """Return a function that crashes the first ``times`` matching points of each task."""
    crashed: Counter[str] = Counter()

    def crashes(point: CrashPoint) -> bool:
        if crashed[point.task.id] >= times or not here(point):
            return False
        crashed[point.task.id] += 1
        return True

    return crashes


def _point(at: str) -> Crash:
    try:
        return Crash(at)
    except ValueError:
        known = " or ".join(f'"{point}"' for point in Crash)
        raise InvalidOption(f"crash_at(..., {at!r}): give {known}") from None


def _name(function: TaskFunction[Any, Any, Any], helper: str) -> str:
    if not isinstance(function, TaskFunction):
        raise InvalidOption(
            f"{helper}({function!r}): give a task function: a crash loses plain functions, which never run again"
        )
    return function.name
