"""One call that was added, and its record."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Self

from afterwards.core.limits import UNLIMITED
from afterwards.core.progress import Progress


class State(StrEnum):
    """Where a task stands."""

    WAITING = "waiting"  # for the task before it in its chain
    SCHEDULED = "scheduled"  # for its time: delayed, retried, snoozed, or not published yet
    QUEUED = "queued"  # for a worker
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self in FINISHED

    @property
    def pending(self) -> bool:
        """Whether no attempt runs, and one may come."""
        return self in PENDING


PENDING = frozenset({State.WAITING, State.SCHEDULED, State.QUEUED})
FINISHED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


LEASE_ENDED = datetime(1970, 1, 1, tzinfo=UTC)
"""``lease_until`` of a lease whose worker is known to be dead: no clock is needed to tell that it is over."""


class FailureKind(StrEnum):
    """Why an attempt did not succeed."""

    RAISED = "raised"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"  # its worker died or did not renew the lease, or a process of the worker's died
    RELEASED = "released"  # given back at shutdown; never counted
    REFUSED = "refused"  # it could not be called: the content of an uploaded file is missing
    UNKNOWN = "unknown"  # stored by a later version, or damaged: this version cannot read it


FIRST_FAILURES, LAST_FAILURES = 5, 10
"""Failures of one task that stay on record: its first ones and its last ones. Those between are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An attempt that did not succeed. The exception is text only: it is never rebuilt."""

    attempt: int
    at: datetime
    worker: str
    kind: FailureKind
    type: str = ""
    message: str = ""
    traceback: str = ""


class Lease(NamedTuple):
    """The right to decide on a task, named by the attempt it was given for. Attempt 0 is the sender's."""

    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """What a sender asks for: one call, before an engine stores it."""

    id: str
    name: str
    arguments: str  # a JSON object, parameter to value
    queue: str = "default"
    priority: int = 0  # higher first
    overrides: str | None = None  # options that this call set for itself, as JSON
    retention: timedelta = timedelta(days=7)  # how long the record stays after the task finished
    origin: str | None = None  # who asked, as "POST /signup/{email}"
    after: str | None = None  # the task that must succeed first
    wait: timedelta = timedelta()  # from the engine's now
    run_at: datetime | None = None  # instead of `wait`, an instant
    chained: bool = False  # `after` is only the order of a request: left out with a task that is not stored anew
    held: bool = False  # stored before its request ended: nobody may start it until it is published
    expires: timedelta | None = None  # from the engine's now: later than that no attempt begins
    unique_key: str | None = None  # no two unfinished tasks have the same
    idempotency_key: str | None = None  # no two tasks have the same
    limit_key: str = UNLIMITED  # whose limit it counts against, of those that its function has
    rerun_after_crash: bool = True
    context: str | None = None  # what surrounded the call: trace and context variables, as JSON
    max_queued: int | None = None  # refused when so many wait in its queue; None is never
    failure: Failure | None = None  # a plain function that failed: recorded, never run


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as an engine keeps it: what was asked, where it stands, and its failures."""

    id: str  # UUIDv7, 36 characters
    name: str
    arguments: str
    created_at: datetime
    state: State
    queue: str = "default"
    priority: int = 0
    overrides: str | None = None
    retention: timedelta = timedelta(days=7)
    origin: str | None = None
    after: str | None = None
    plain: bool = False  # the record of a plain function's failure; cannot run again
    expires_at: datetime | None = None  # from then on no attempt begins
    unique_key: str | None = None
    idempotency_key: str | None = None
    limit_key: str = UNLIMITED
    rerun_after_crash: bool = True
    context: str | None = None

    attempt: int = 0  # counts claims, never goes down: it fences late workers
    failed: int = 0  # failures that count against `retries`; zero again after a requeue
    crashed: int = 0  # crashes in which this task was the suspect; zero again after a requeue
    suspect: bool = False  # may have ended a worker: runs beside no other suspect
    losses: int = 0  # attempts in a row whose worker was lost
    run_at: datetime | None = None  # when a scheduled task is due
    worker: str | None = None  # who holds the lease, or held the last one
    lease_until: datetime | None = None
    started_at: datetime | None = None  # of the last attempt
    finished_at: datetime | None = None
    cancel_requested: str | None = None  # the reason, while a running task is asked to stop
    reason: str | None = None  # why it was cancelled
    cause: str | None = None  # the task before it whose end cancelled this one
    progress: Progress | None = None
    result: str | None = None  # JSON
    failures: tuple[Failure, ...] = ()  # oldest first; claims leave them out
    failures_left_out: int = 0  # of the failures, those between the first and the last ones that are kept
    set_aside: str | None = None  # why no worker may begin it: this code cannot read it, other code may
    unreadable: str | None = None  # why this version cannot read the record; the other fields hold what it can

    @property
    def lease(self) -> Lease:
        return Lease(self.id, self.attempt)

    @property
    def retrying(self) -> bool:
        """Whether it waits for another attempt after a failure."""
        return self.state is State.SCHEDULED and self.failed > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTask:
    """What an ``on_failure`` function is told: which task failed for good, and its last failure."""

    id: str
    name: str
    attempt: int
    kind: FailureKind
    type: str
    message: str
    traceback: str

    @classmethod
    def of(cls, task: Task, failure: Failure) -> Self:
        return cls(
            id=task.id,
            name=task.name,
            attempt=failure.attempt,
            kind=failure.kind,
            type=failure.type,
            message=failure.message,
            traceback=failure.traceback,
        )


def task_id(now: datetime, randomness: bytes) -> str:
    """A UUIDv7 (RFC 9562, 5.7) from an instant and ten random bytes: later ids sort after earlier ones, by millisecond.

    >>> from datetime import UTC
    >>> task_id(datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC), bytes(10))
    '017f22e2-79b0-7000-8000-000000000000'
    """
    instant = f"{int(now.timestamp() * 1000):012x}"
    digits = randomness.hex()
    return f"{instant[:8]}-{instant[8:]}-7{digits[:3]}-{'89ab'[randomness[2] >> 4 & 3]}{digits[5:8]}-{digits[8:]}"
