"""The check that a task belongs to the client that asks for it: a function of the application, as a dependency."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, HTTPException
from fastapi.concurrency import run_in_threadpool

from afterwards.core.errors import InvalidOption
from afterwards.core.record import TaskRecord
from afterwards.core.task import Task

Find = Callable[..., Awaitable[Task | None]]
"""A dependency that returns the task of a request's path."""

_ASKED = "afterwards_task"


def owned(owner: Callable[..., Any], find: Find) -> Callable[..., Awaitable[Task]]:
    """Return a dependency that returns the task of the path if ``owner`` returns True for it.

    It has the parameters of ``owner``, so FastAPI provides them; only the record is given here. All of them are
    provided before the task is looked at: who is not signed in learns nothing. Raises InvalidOption. In a request, it
    raises 404 for an unknown task as for one that is refused.
    """
    parameters = _parameters(owner)
    record = _record_parameter(parameters)

    async def owned_task(**given: Any) -> Task:
        task: Task | None = given.pop(_ASKED)
        if task is None:
            raise HTTPException(404)
        if record is not None:
            given[record] = TaskRecord.of(task)
        if not await _is_owner(owner, given):
            raise HTTPException(404)
        return task

    asked = inspect.Parameter(_ASKED, inspect.Parameter.KEYWORD_ONLY, default=Depends(find), annotation=Any)
    given = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters if one.name != record]
    owned_task.__signature__ = inspect.Signature([*given, asked])  # type: ignore[attr-defined]  # FastAPI reads it
    return owned_task


async def _is_owner(owner: Callable[..., Any], given: dict[str, Any]) -> bool:
    try:
        said = owner(**given) if _is_async(owner) else await run_in_threadpool(owner, **given)
        return bool(await said if inspect.isawaitable(said) else said)
    except HTTPException as refusal:
        if refusal.status_code in (403, 404):  # would tell that the task exists
            return False
        raise


def _parameters(owner: Callable[..., Any]) -> list[inspect.Parameter]:
    if not callable(owner) or inspect.isgeneratorfunction(owner) or inspect.isasyncgenfunction(owner):
        raise InvalidOption(f"router(owner={owner!r}): give a function that returns True for the owner of a task")
    try:
        found = list(inspect.signature(owner, eval_str=True).parameters.values())
    except NameError as error:
        raise InvalidOption(
            f"router(owner={owner!r}): its annotations cannot be evaluated ({error}): import them outside TYPE_CHECKING"
        ) from error
    for one in found:
        if one.kind in (one.POSITIONAL_ONLY, one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise InvalidOption(
                f"router(owner={owner!r}): FastAPI cannot provide its parameter {str(one)!r}: name each parameter"
            )
    return found


def _record_parameter(parameters: list[inspect.Parameter]) -> str | None:
    """Return the parameter for the record: the one annotated as TaskRecord, else ``task`` without an annotation."""
    for one in parameters:
        if one.annotation is TaskRecord or (one.name == "task" and one.annotation is one.empty):
            return one.name
    return None


def _is_async(owner: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(owner) or inspect.iscoroutinefunction(getattr(owner, "__call__", None))  # noqa: B004
