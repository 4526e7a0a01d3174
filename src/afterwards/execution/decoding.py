"""Read what is stored of a task with the code of today, and say what this code cannot read."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from afterwards.core.errors import Unreadable
from afterwards.core.options import TaskOptions
from afterwards.core.problems import ProblemKind, unfit
from afterwards.core.task import Task
from afterwards.execution.function import Runnable, options_of


class Misfit(Exception):
    """Something of a stored task that this code cannot read. The text shows no values."""

    def __init__(self, what: ProblemKind, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.reason = reason


def read_arguments(function: Runnable, task: Task) -> dict[str, Any]:
    """The arguments by parameter. Raises Misfit."""
    try:
        return function.codec.load(task.arguments)
    except Unreadable as error:
        raise Misfit(ProblemKind.ARGUMENTS, unfit(error.__cause__)) from error
    except Exception as error:  # validators of the application's types raise what they like
        raise Misfit(ProblemKind.ARGUMENTS, unfit(error)) from error


def read_options(function: Runnable, task: Task) -> TaskOptions:
    """The function's options, with those that the call set for itself. Raises Misfit."""
    try:
        return options_of(function, task)
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = f"this code does not understand them ({type(error).__name__})"
        raise Misfit(ProblemKind.OPTIONS, reason) from error


def check_context(task: Task) -> None:
    """Raise Misfit for a context that is not of the form that is written today."""
    if task.context is None:
        return
    try:
        context = json.loads(task.context)
        parts = [context.get(part, {}) for part in ("trace", "variables")]
    except (ValueError, AttributeError, RecursionError) as error:
        raise Misfit(ProblemKind.CONTEXT, f"this code does not understand it ({type(error).__name__})") from error
    if not all(isinstance(part, dict) for part in parts):
        raise Misfit(ProblemKind.CONTEXT, "this code does not understand it")


def misfits(function: Runnable, task: Task) -> list[Misfit]:
    """All that keeps this code from running the task."""
    found = []
    checks: tuple[Callable[[Task], object], ...] = (
        partial(read_arguments, function),
        partial(read_options, function),
        check_context,
    )
    for check in checks:
        try:
            check(task)
        except Misfit as misfit:
            found.append(misfit)
    return found
