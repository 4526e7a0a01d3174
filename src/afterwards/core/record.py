"""``TaskRecord``: what people see of a task, and its form in JSON."""

from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Self

from afterwards.core.progress import Progress
from afterwards.core.redaction import Redactor, json_value
from afterwards.core.task import Failure, LogLine, State, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """The record of a task: what was asked, where it stands, and how its attempts ended. Instants are in UTC.

    Arguments and result are plain JSON values, as they are stored. Logs and the tracebacks of failures are in the
    record of one task (``status``, ``tasks.get``), not in lists.
    """

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
    secrets: tuple[str, ...] = field(default=(), repr=False)  # what is hidden wherever the record is shown

    @classmethod
    def of(cls, task: Task, *, shown: bool = False) -> Self:
        """Return the record of a stored task. With ``shown``, its secrets are hidden."""
        same = {name: getattr(task, name) for name in _SAME}
        arguments = json_value(task.arguments)
        record = cls(
            **same,
            arguments=arguments if isinstance(arguments, dict) else {},
            result=json_value(task.result),
            trace=_trace(task.context),
        )
        return record.redacted() if shown else record

    def redacted(self) -> Self:
        """Return the record without its secrets: their values, and their texts wherever they occur."""
        hide = Redactor(self.arguments, self.result, self.secrets)
        texts: dict[str, Any] = {name: hide.text(text) for name in _TEXTS if (text := getattr(self, name)) is not None}
        return replace(
            self,
            **texts,
            arguments=hide.arguments(self.arguments),
            result=hide.result(self.result),
            progress=self.progress and _progress(self.progress, hide),
            failures=tuple(map(hide.failure, self.failures)),
            logs=tuple(replace(one, message=hide.text(one.message)) for one in self.logs),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values, always without its secrets. Instants are ISO 8601 in UTC."""
        shown = self.redacted()
        return {one.name: _plain(getattr(shown, one.name)) for one in fields(shown) if one.name != "secrets"}


def _progress(progress: Progress, hide: Redactor) -> Progress:
    return replace(
        progress,
        description=hide.text(progress.description),
        unit=hide.text(progress.unit),
        note=hide.text(progress.note),
    )


def _plain(value: Any) -> Any:
    match value:
        case State():
            return str(value)
        case datetime():
            return instant(value)
        case tuple():
            return [_plain(one) for one in value]
        case Progress() | Failure() | LogLine():
            return {name: _plain(part) for name, part in asdict(value).items()}
    return value


def instant(at: datetime) -> str:
    """Return an instant as ISO 8601 in UTC.

    >>> instant(datetime(2026, 1, 31, 12, 30, tzinfo=UTC))
    '2026-01-31T12:30:00Z'
    """
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _trace(context: str | None) -> str | None:
    """Return the id of a W3C trace; None without one, or in another format."""
    stored = json_value(context)
    trace = stored.get("trace") if isinstance(stored, dict) else None
    header = trace.get("traceparent") if isinstance(trace, dict) else None
    parts = header.split("-") if isinstance(header, str) else []
    return parts[1] if len(parts) >= 4 else None


_TEXTS = ("reason", "cancel_requested", "set_aside", "unreadable", "idempotency_key", "unique_key", "origin")
_SAME = tuple(one.name for one in fields(TaskRecord) if one.name not in ("arguments", "result", "trace"))
