"""One call of a generated enqueue."""

from dataclasses import dataclass, fields

from afterwards.core.task import Failure, FailureKind, NewTask
from afterwards.testing.clock import START
from afterwards.testing.conformance.generated.invariants import SECOND

FAILURE = Failure(attempt=1, at=START, worker="w", kind=FailureKind.RAISED, type="ValueError", message="no")


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of an enqueue. Its ``repr`` leaves out the defaults."""

    name: str = "greet"
    queue: str = "default"
    priority: int = 0
    retention: int = 1_000_000
    after: int | None = None  # 0: the call just before it
    held: bool = False
    wait: int = 0
    plain: bool = False
    chained: bool = False
    expires: int | None = None
    unique_key: str | None = None
    idempotency_key: str | None = None
    limit_key: str = ""
    rerun_after_crash: bool = True
    max_queued: int | None = None
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        given = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}
        return f"Asked({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def new(self, id: str, after: str | None) -> NewTask:
        """Return the task of this call. ``after`` is the id of the task that it comes after."""
        return NewTask(
            id=id,
            name=self.name,
            arguments="{}",
            queue=self.queue,
            priority=self.priority,
            retention=self.retention * SECOND,
            after=after,
            held=self.held,
            wait=self.wait * SECOND,
            failure=FAILURE if self.plain else None,
            chained=self.chained,
            expires=None if self.expires is None else self.expires * SECOND,
            unique_key=None if self.plain else self.unique_key,
            idempotency_key=self.idempotency_key,
            limit_key=self.limit_key,
            rerun_after_crash=self.rerun_after_crash,
            max_queued=self.max_queued,
            secrets=self.secrets,
        )
