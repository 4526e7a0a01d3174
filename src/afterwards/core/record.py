"""``TaskRecord``: what people see of a task, and its form in JSON."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, SerializerFunctionWrapHandler, model_serializer

from afterwards.core.call_context import trace_id_of
from afterwards.core.progress import Progress
from afterwards.core.redaction import Redactor, json_value
from afterwards.core.task import Failure, LogLine, State, Task


class TaskRecord(BaseModel):
    """The record of a task: what was asked, where it stands, and how its attempts ended. Instants are in UTC.

    Arguments and result are plain JSON values, as they are stored. Logs and the tracebacks of failures are in the
    record of one task (``status``), not in lists. The application may read everything; what leaves it, as an answer, as
    JSON or as text, never has the task's secrets.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    name: str  # of the task function
    queue: str
    state: State
    priority: int
    attempt: int  # of the current or the last one; 0: none has begun
    arguments: dict[str, Any]  # by parameter, without omitted defaults
    result: Any  # None: it returned nothing, or has not succeeded
    created_at: datetime
    run_at: datetime | None  # when a scheduled task is due
    started_at: datetime | None  # of the last attempt
    finished_at: datetime | None
    expires_at: datetime | None  # no attempt starts later
    origin: str | None  # the request that added it, as "POST /signup/{email}"
    worker: str | None  # of the current or the last attempt
    progress: Progress | None
    cancel_requested: str | None  # the reason, once a running task was asked to stop
    reason: str | None  # why it was cancelled
    cause: str | None  # the id of the predecessor whose end cancelled it
    after: str | None  # the id of the task that must succeed first
    failures: tuple[Failure, ...]  # the first and the last ones, oldest first
    failures_left_out: int  # the number of those between them
    logs: tuple[LogLine, ...]  # what the last attempts logged, oldest first
    retrying: bool  # it waits for another attempt after a failure
    plain: bool  # the failure of a plain function; cannot run again
    set_aside: str | None  # why no worker may claim it: the code of this installation cannot read it
    unreadable: str | None  # why this version cannot read the record; the other fields hold the readable part
    idempotency_key: str | None
    unique_key: str | None
    trace: str | None  # the id of the trace in which it was added
    _secrets: tuple[str, ...] = PrivateAttr(default=())

    @classmethod
    def of(cls, task: Task, *, shown: bool = False) -> "TaskRecord":
        """Return the record of a stored task. With ``shown``, its secrets are hidden."""
        arguments = json_value(task.arguments)
        record = cls.model_construct(
            **{name: _in_utc(getattr(task, name)) for name in _SAME},
            arguments=arguments if isinstance(arguments, dict) else {},
            result=json_value(task.result),
            trace=trace_id_of(task.context),
        )
        record._secrets = task.secrets
        if shown:
            return record.redacted()
        return record

    @property
    def secrets(self) -> tuple[str, ...]:
        """The places that are hidden wherever the record is shown, as ``Redactor`` takes them."""
        return self._secrets

    def redacted(self) -> Self:
        """Return the record without its secrets: their values, and their texts wherever they occur."""
        hide = Redactor(self.arguments, self.result, self._secrets)
        changed: dict[str, Any] = {
            "arguments": hide.arguments(self.arguments),
            "result": hide.result(self.result),
            "progress": self.progress and _progress(self.progress, hide),
            "failures": tuple(map(hide.failure, self.failures)),
            "logs": tuple(replace(one, message=hide.text(one.message)) for one in self.logs),
        }
        for name in _TEXTS:
            text = getattr(self, name)
            changed[name] = None if text is None else hide.text(text)
        return self.model_copy(update=changed)

    def as_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values, always without its secrets. Instants are ISO 8601 in UTC."""
        return self.model_dump(mode="json")

    @model_serializer(mode="wrap")
    def _without_secrets(self, handler: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        # Without a return annotation, OpenAPI describes the fields.
        return handler(self.redacted())

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        shown = self.redacted()
        return [(name, getattr(shown, name)) for name in type(self).model_fields]


def _in_utc(value: Any) -> Any:
    """Return a value unchanged, but for an instant: an application may have given it in another zone."""
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def _progress(progress: Progress, hide: Redactor) -> Progress:
    return replace(
        progress,
        description=hide.text(progress.description),
        unit=hide.text(progress.unit),
        note=hide.text(progress.note),
    )


_TEXTS = ("reason", "cancel_requested", "set_aside", "unreadable", "idempotency_key", "unique_key", "origin")
_SAME = tuple(name for name in TaskRecord.model_fields if name not in ("arguments", "result", "trace"))
