"""``TaskStatus``: what an application's own users see of their tasks."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from afterwards.core.redaction import Redactor, redactor_of
from afterwards.core.task import FailureKind, State, Task


class TaskProgress(BaseModel):
    """The progress of a task, as its function reports it."""

    model_config = ConfigDict(frozen=True)

    done: int | float
    total: int | float | None = Field(description="None if it is not known.")
    fraction: float | None = Field(description="The completed part, from 0 to 1. None if the total is not known.")
    description: str
    unit: str
    note: str


class TaskStatus(BaseModel):
    """Where a task stands. It has no arguments, no traceback, and nothing of other tasks."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    state: State
    attempt: int = Field(description="The number of the current or the last attempt. 0 if none has begun.")
    progress: TaskProgress | None
    created_at: datetime
    started_at: datetime | None = Field(description="The beginning of the last attempt.")
    finished_at: datetime | None
    cancel_requested: bool = Field(description="True if it was asked to stop.")
    error: str | None = Field(description="Why it has no result, if it failed or was cancelled.")

    @classmethod
    def of(cls, task: Task, *, errors: bool = False) -> Self:
        """Return the status of a stored task, without its secrets. ``errors``: with the message of its exception,
        or the reason of its cancellation."""
        hide = redactor_of(task)
        return cls(
            id=task.id,
            name=task.name,
            state=task.state,
            attempt=task.attempt,
            progress=_progress(task, hide),
            created_at=task.created_at,
            started_at=task.started_at,
            finished_at=task.finished_at,
            cancel_requested=task.cancel_requested is not None,
            error=_error(task, hide, errors=errors),
        )


class NoResult(BaseModel):
    """The answer for a task that has no result, and will have none."""

    detail: str
    task: TaskStatus


def _progress(task: Task, hide: Redactor) -> TaskProgress | None:
    shown = task.progress
    if shown is None:
        return None
    return TaskProgress(
        done=shown.done,
        total=shown.total,
        fraction=shown.fraction,
        description=hide.text(shown.description),
        unit=hide.text(shown.unit),
        note=hide.text(shown.note),
    )


def _error(task: Task, hide: Redactor, *, errors: bool) -> str | None:
    match task.state:
        case State.CANCELLED if task.cause is not None:
            return "a task before it did not succeed"  # the reason would name it
        case State.CANCELLED if errors and task.reason:
            return hide.text(task.reason)
        case State.CANCELLED:
            return "it was cancelled"  # the reason may name who of the operators did it
        case State.FAILED if errors and task.failures:
            last = task.failures[-1]
            return hide.text(f"{last.type}: {last.message}" if last.type else last.message)
        case State.FAILED:
            return _WHY.get(task.failures[-1].kind, "it failed") if task.failures else "it failed"
    return None


_WHY = {
    FailureKind.TIMED_OUT: "it took too long",
    FailureKind.CRASHED: "its process ended",
}
