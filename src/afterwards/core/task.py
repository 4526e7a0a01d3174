"""A task: one stored call, and its record."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Self

from afterwards.core.limits import UNLIMITED
from afterwards.core.progress import Progress


class State(StrEnum):
    """The state of a task."""

    WAITING = "waiting"  # for its predecessor in its chain
    SCHEDULED = "scheduled"  # until its time: delayed, retried, snoozed, or not published yet
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
        """True if no attempt runs and one may follow."""
        return self in PENDING


PENDING = frozenset({State.WAITING, State.SCHEDULED, State.QUEUED})
FINISHED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


LEASE_ENDED = datetime(1970, 1, 1, tzinfo=UTC)
"""The ``lease_until`` of a lease whose worker is known to be dead. It has ended by any clock."""


class FailureKind(StrEnum):
    """The reason why an attempt did not succeed."""

    RAISED = "raised"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"  # its worker died or did not renew the lease, or its process died
    RELEASED = "released"  # released at shutdown; never counted
    REFUSED = "refused"  # it could not start: the content of an uploaded file is missing
    LATE = "late"  # it ended after its lease was lost, so its end is not stored
    UNKNOWN = "unknown"  # stored by a later version, or damaged: this version cannot read it

    @property
    def counts(self) -> bool:
        """False if the attempt was only given back, or its end was stored by another record."""
        return self not in (FailureKind.RELEASED, FailureKind.LATE)


FIRST_FAILURES, LAST_FAILURES = 5, 10
"""The numbers of a task's first and last failures that are kept. Those between are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An attempt that did not succeed. The exception is kept as text only."""

    attempt: int
    at: datetime
    worker: str
    kind: FailureKind
    type: str = ""
    message: str = ""
    traceback: str = ""


LOGGED_ATTEMPTS = 10
"""The number of a task's last attempts whose log lines are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line that was logged during an attempt."""

    attempt: int
    at: datetime
    level: str  # as "WARNING"
    logger: str
    message: str


class Lease(NamedTuple):
    """The exclusive right to update a task, identified by its attempt. Attempt 0 belongs to the sender."""

    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """One call that a sender wants stored."""

    id: str
    name: str
    arguments: str  # a JSON object, parameter to value
    queue: str = "default"
    priority: int = 0  # higher first
    overrides: str | None = None  # options that this call sets, as JSON
    retention: timedelta = timedelta(days=7)  # how long the record is kept after the task has finished
    origin: str | None = None  # the request that added it, as "POST /signup/{email}"
    after: str | None = None  # the task that must succeed first
    wait: timedelta = timedelta()  # from the engine's now
    run_at: datetime | None = None  # an instant, instead of `wait`
    chained: bool = False  # `after` is only the order in a request; a task that is not stored is left out of it
    held: bool = False  # stored before its request ended: it may not start until it is published
    expires: timedelta | None = None  # from the engine's now: no attempt starts later
    unique_key: str | None = None  # different for all unfinished tasks
    idempotency_key: str | None = None  # different for all tasks
    limit_key: str = UNLIMITED  # the key under which its function's limits count it
    rerun_after_crash: bool = True
    context: str | None = None  # the caller's trace and context variables, as JSON
    max_queued: int | None = None  # refused if so many tasks wait in its queue; None: never
    failure: Failure | None = None  # a plain function that failed: recorded, never run
    secrets: tuple[str, ...] = ()  # the parameters whose values are never shown, and "return" for the result


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A stored task: the call, its state, and its failures."""

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
    expires_at: datetime | None = None  # no attempt starts later
    unique_key: str | None = None
    idempotency_key: str | None = None
    limit_key: str = UNLIMITED
    rerun_after_crash: bool = True
    context: str | None = None
    secrets: tuple[str, ...] = ()

    attempt: int = 0  # counts claims and never decreases: it fences late workers
    failed: int = 0  # failures that count against `retries`; zero again after a requeue
    crashed: int = 0  # crashes in which this task was the suspect; zero again after a requeue
    suspect: bool = False  # may have crashed a worker: never runs beside another suspect
    losses: int = 0  # consecutive attempts whose worker was lost
    run_at: datetime | None = None  # when a scheduled task is due
    worker: str | None = None  # the holder of the current or the last lease
    lease_until: datetime | None = None
    started_at: datetime | None = None  # of the last attempt
    finished_at: datetime | None = None
    cancel_requested: str | None = None  # the reason, once a running task was asked to stop
    reason: str | None = None  # why it was cancelled
    cause: str | None = None  # the id of the predecessor whose end cancelled this task
    progress: Progress | None = None
    result: str | None = None  # JSON
    failures: tuple[Failure, ...] = ()  # oldest first; a claim returns none
    failures_left_out: int = 0  # the number of failures between the first and the last ones that are kept
    logs: tuple[LogLine, ...] = ()  # of the last attempts, oldest first; only ``get`` returns them
    set_aside: str | None = None  # why no worker may claim it: this code cannot read it, other code may
    unreadable: str | None = None  # why this version cannot read the record; the other fields hold the readable part

    @property
    def lease(self) -> Lease:
        return Lease(self.id, self.attempt)

    @property
    def retrying(self) -> bool:
        """True if the task waits for another attempt after a failure."""
        return self.state is State.SCHEDULED and self.failed > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTask:
    """The argument of an ``on_failure`` function: the task that has finally failed, and its last failure."""

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
    """Return a UUIDv7 (RFC 9562, 5.7) from an instant and ten random bytes. Ids sort by millisecond.

    >>> from datetime import UTC
    >>> task_id(datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC), bytes(10))
    '017f22e2-79b0-7000-8000-000000000000'
    """
    instant = f"{int(now.timestamp() * 1000):012x}"
    digits = randomness.hex()
    return f"{instant[:8]}-{instant[8:]}-7{digits[:3]}-{'89ab'[randomness[2] >> 4 & 3]}{digits[5:8]}-{digits[8:]}"
