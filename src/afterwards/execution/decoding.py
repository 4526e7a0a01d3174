"""Decode a stored task with the current code, and report what this code cannot read."""

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
    """A part of a stored task that this code cannot read. The text shows no values."""

    def __init__(self, what: ProblemKind, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.reason = reason


def read_arguments(function: Runnable, task: Task) -> dict[str, Any]:
    """Return the arguments by parameter. Raises Misfit."""
    try:
        return function.codec.load(task.arguments)
    except Unreadable as error:
        raise Misfit(ProblemKind.ARGUMENTS, unfit(error.__cause__)) from error
    except BaseException as error:  # validators of the application's types may raise anything
        raise Misfit(ProblemKind.ARGUMENTS, unfit(error)) from error


def read_options(function: Runnable, task: Task) -> TaskOptions:
    """Return the function's options, overridden by those of the call. Raises Misfit."""
    try:
        return options_of(function, task)
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = f"this code cannot read them ({type(error).__name__})"
        raise Misfit(ProblemKind.OPTIONS, reason) from error


def check_context(task: Task) -> None:
    """Raise Misfit for a context that is not in the current format."""
    if task.context is None:
        return
    try:
        context = json.loads(task.context)
        parts = [context.get(part, {}) for part in ("trace", "variables")]
    except (ValueError, AttributeError, RecursionError) as error:
        raise Misfit(ProblemKind.CONTEXT, f"this code cannot read it ({type(error).__name__})") from error
    if not all(isinstance(part, dict) for part in parts):
        raise Misfit(ProblemKind.CONTEXT, "this code cannot read it")


def misfits(function: Runnable, task: Task) -> list[Misfit]:
    """Return every reason why this code cannot run the task."""
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
