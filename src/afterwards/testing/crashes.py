"""Processes that die while tasks run, as far as a test's tasks can tell."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Literal

from afterwards.core.errors import InvalidOption
from afterwards.core.lifecycle import Succeeded
from afterwards.tasks.function import TaskFunction
from afterwards.testing.inline import memory, under_test
from afterwards.testing.inline_worker import CrashesAt, CrashPoint


class Crash(StrEnum):
    """Where in an attempt its process dies."""

    START = "start"  # the attempt is counted, the function is not called
    END = "end"  # the function has ended, however it did, and that is not recorded


@contextmanager
def crash_at(
    function: TaskFunction[Any, Any, Any], at: Crash | Literal["start", "end"], *, times: int = 1
) -> Iterator[None]:
    """Meanwhile the first attempt of each of the function's tasks, or the first ``times``, crash.

    The tasks are taken back at once, as other workers do when a lease is over, and the run goes on with the next
    attempt; the fourth crash ends a task as failed, and the first one with ``rerun_after_crash=False``. No exception is
    raised into the test. Raises InvalidOption.
    """
    point, name = _point(at), _name(function, "crash_at")
    if isinstance(times, bool) or not isinstance(times, int) or times < 1:
        raise InvalidOption(f"times={times!r}: give the number of attempts that crash, at least 1")

    def here(moment: CrashPoint) -> bool:
        return moment.function.name == name and (moment.outcome is None) == (point is Crash.START)

    with _dying(_each_task(here, times)):
        yield


@contextmanager
def run_twice(*functions: TaskFunction[Any, Any, Any]) -> Iterator[None]:
    """Meanwhile every task that succeeds runs once more, for its process died before that was recorded.

    This is what at-least-once means: assert afterwards that the effect is there once. With ``functions``, only their
    tasks. Those with ``rerun_after_crash=False`` run once, for they never run again. Raises InvalidOption.
    """
    names = {_name(function, "run_twice") for function in functions}
    for function in functions:
        if not function.settings.rerun_after_crash:
            raise InvalidOption(
                f"run_twice({function.name}): with rerun_after_crash=False it never runs again, "
                'but ends as failed: that is crash_at(..., "end")'
            )

    def here(moment: CrashPoint) -> bool:
        asked = not names or moment.function.name in names
        return asked and isinstance(moment.outcome, Succeeded) and moment.task.rerun_after_crash

    with _dying(_each_task(here, times=1)):
        yield


@contextmanager
def _dying(dies: CrashesAt) -> Iterator[None]:
    memory()  # elsewhere nobody would ask
    under_test.crashes.append(dies)
    try:
        yield
    finally:
        under_test.crashes.remove(dies)


def _each_task(here: Callable[[CrashPoint], bool], times: int) -> CrashesAt:
    """CrashesAt so often in each task."""
    died: Counter[str] = Counter()

    def dies(moment: CrashPoint) -> bool:
        if died[moment.task.id] >= times or not here(moment):
            return False
        died[moment.task.id] += 1
        return True

    return dies


def _point(at: str) -> Crash:
    try:
        return Crash(at)
    except ValueError:
        known = " or ".join(f'"{point}"' for point in Crash)
        raise InvalidOption(f"crash_at(..., {at!r}): give {known}") from None


def _name(function: TaskFunction[Any, Any, Any], helper: str) -> str:
    if not isinstance(function, TaskFunction):
        raise InvalidOption(
            f"{helper}({function!r}): give a task function: a crash loses plain ones, which never run again"
        )
    return function.name
