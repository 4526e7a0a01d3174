"""What an engine is: where tasks are kept. The protocols, and the values they exchange."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Protocol, Self

from afterwards.core.lifecycle import Settled
from afterwards.core.limits import Limit
from afterwards.core.progress import Progress
from afterwards.core.routing import Backlog, LiveWorker, Route
from afterwards.core.schedule import StoredSchedule
from afterwards.core.task import Lease, NewTask, State, Task

NO_TIMES: Mapping[Lease, datetime] = MappingProxyType({})
"""No published task has a time of its own to wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a worker can take now."""

    worker: str  # a new id for every start of a process
    limit: int  # free slots
    lease: timedelta
    names: frozenset[str]  # the task functions it knows; it is never given another one
    queues: frozenset[str] | None = None  # None: all
    suspects: int = 1  # how many of the tasks may have been running when a worker was lost
    limits: Mapping[str, Limit] = field(default_factory=dict)  # of those task functions that have any
    ids: frozenset[str] | None = None  # these tasks only; what of them is set aside is brought back first

    def serves(self, task: NewTask | Task) -> bool:
        """Whether the worker may take this task."""
        return (
            task.name in self.names
            and (self.queues is None or task.queue in self.queues)
            and (self.ids is None or task.id in self.ids)
        )

    def could_lease(self, task: NewTask) -> bool:
        """Whether the worker may have a task leased as it is stored: what is limited has to be claimed.

        Nor what a crash ends, for between the storing and the end of its request it has not begun.
        """
        return self.serves(task) and task.name not in self.limits and task.rerun_after_crash


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life for one attempt, with its progress since the last one."""

    lease: Lease
    progress: Progress | None = None  # None leaves what is stored


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that a heartbeat renewed, and the reason why its task should stop, if somebody asked for that."""

    lease: Lease
    cancel_requested: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of an uploaded file."""

    file: str  # the file's id
    task: str  # whose argument it is; stored after it
    number: int  # from 0, without a gap
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which tasks to list, newest first. None means any; ``before`` continues below a task that was listed."""

    states: frozenset[State] | None = None
    names: frozenset[str] | None = None
    queues: frozenset[str] | None = None
    before: str | None = None
    idempotency_keys: frozenset[str] | None = None
    set_aside: bool = False  # only what is set aside
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How many tasks stand where, and how long the one that is queued longest has been waiting."""

    counts: Mapping[tuple[str, State], int]  # by queue and state; zero is left out
    oldest: timedelta | None


class Answer(NamedTuple):
    """What a statement gave."""

    rows: Sequence[Any]
    changed: int


class Transaction(Protocol):
    """A transaction of the application's own, which the application will commit or roll back."""

    @property
    def dialect(self) -> str:
        """The kind of its database, as ``sqlite`` or ``postgresql``."""
        ...

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Answer:
        """Run a statement of the database's driver. Its errors are passed on as they are."""
        ...


class Joined(Protocol):
    """An engine in a transaction of the application's own."""

    def enqueue(self, tasks: Sequence[NewTask]) -> list[Task]:
        """Store tasks, in this order, together with what the transaction commits. Returns them as stored."""
        ...

    def committed(self) -> None:
        """The transaction was committed: wake whoever waits for tasks. Only a hint."""
        ...


class Joinable(Protocol):
    """An engine whose tasks may lie beside the application's own rows."""

    def join(self, transaction: Transaction) -> Joined | None:
        """Take part in a transaction; None when it is on another database than the tasks. May be called in any thread.

        The engine need not be open. Called when the transaction is about to be committed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Fire:
    """One instant of a schedule, and the task that it stands for."""

    schedule: str  # the task function's name
    at: datetime
    task: NewTask


class Sender(Protocol):
    """What a process needs that adds tasks and asks about them. Every method is atomic."""

    async def enqueue(self, tasks: Sequence[NewTask], *, claim: Claim | None = None) -> list[Task]:
        """Store tasks, all or none, in this order; one whose id is stored already is left as it is.

        With ``claim``, those that could start at once are stored as running and leased to it, as long as no task that
        it could take is queued, and neither a limit nor a pause is in the way. Returns the tasks as stored; where a
        uniqueness rule answers, the task that was there: its id stands for both from then on. When it returns they
        survive what the engine promises. Raises QueueFull when a queue has as many as a task's ``max_queued``.
        """
        ...

    async def refuse_full(self, tasks: Sequence[NewTask]) -> None:
        """Raise QueueFull if ``enqueue`` would, and store nothing: asked before what a task needs is written."""
        ...

    async def publish(
        self, leases: Sequence[Lease], *, held: bool = False, run_at: Mapping[Lease, datetime] = NO_TIMES
    ) -> None:
        """Queue held tasks, for their request has ended; with ``held``, keep them back for another minute.

        Those in ``run_at`` are scheduled for their instant, if it is still to come. A lease that is not the task's any
        more is passed over.
        """
        ...

    async def get(self, ids: Sequence[str]) -> list[Task]:
        """The tasks that exist, in the order asked for."""
        ...

    async def cancel(self, ids: Sequence[str], reason: str) -> list[Task]:
        """Cancel tasks, and those behind them; a running one is asked to stop. Returns them as they stand.

        Many are cancelled in pieces, each of them atomic, so that others get their turn.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """What no worker may begin now: the tasks of queues, and of task functions."""

    queues: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    def __or__(self, other: Self) -> Self:
        return replace(self, queues=self.queues | other.queues, names=self.names | other.names)

    def __sub__(self, other: Self) -> Self:
        return replace(self, queues=self.queues - other.queues, names=self.names - other.names)

    def stops(self, task: NewTask | Task | Route) -> bool:
        return task.queue in self.queues or task.name in self.names


class Controls(Protocol):
    """What people stop and start by hand. What runs already goes on."""

    async def pause(self, paused: Paused) -> None:
        """Pause these, too."""
        ...

    async def resume(self, paused: Paused) -> None:
        """Pause these no longer."""
        ...

    async def paused(self) -> Paused:
        """All that is paused."""
        ...


class Files(Protocol):
    """Where the contents of uploaded files are kept, in chunks, for as long as their tasks."""

    async def write_chunks(self, chunks: Sequence[Chunk]) -> None:
        """Store chunks, all or none; one that is stored already is replaced.

        ``prune`` deletes them together with their task; after a day, also those whose task was never stored.
        """
        ...

    async def delete_files(self, tasks: Sequence[str]) -> None:
        """Delete the files of tasks that were refused. Those of a task that is stored are kept."""
        ...

    async def read_chunks(self, file: str, *, start: int, limit: int) -> list[bytes]:
        """The contents of a file's chunks from this number on, in order. None of them: no such file, or its end."""
        ...


class Schedules(Protocol):
    """The schedules of task functions, by the function's name. Every method is atomic."""

    async def register_schedules(self, expressions: Mapping[str, str]) -> None:
        """Keep schedules. One that is new, or has another expression, begins now; the others stay as they are."""
        ...

    async def schedules(self, names: Collection[str]) -> list[StoredSchedule]:
        """Those of them that are kept, by name."""
        ...

    async def fire(self, fires: Sequence[Fire]) -> list[Task]:
        """Store the task of each fire that is later than all before it, unless the schedule is paused.

        Both in one transaction, so that any number of processes may try: each fire time has one task at most, also
        after that was pruned. Returns the tasks that were stored.
        """
        ...

    async def pause_schedules(self, names: Collection[str]) -> None:
        """Fire them no more. What they have stored already is left alone."""
        ...

    async def resume_schedules(self, names: Collection[str]) -> None:
        """Fire paused ones again, from now on: what was missed meanwhile is over with."""
        ...


class Roster(Protocol):
    """The workers that live, and what waits for one."""

    async def sign_in(self, workers: Sequence[LiveWorker]) -> None:
        """Note that these workers live now; one that is known is noted as it is now."""
        ...

    async def sign_out(self, ids: Collection[str]) -> None:
        """These workers have left. They count as seen now; ``prune`` forgets them, and the dead, after a day."""
        ...

    async def live_workers(self, since: timedelta) -> list[LiveWorker]:
        """Those that signed in within this span and have not left, in the order in which they started."""
        ...

    async def seen_workers(self, since: timedelta) -> list[LiveWorker]:
        """As ``live_workers``, with those that have left within the span."""
        ...

    async def routes(self) -> list[Route]:
        """Where anything waits for nothing but a worker: queued, or scheduled and due. Cheap, however much it is."""
        ...

    async def backlog(self, routes: Collection[Route], waited: timedelta) -> list[Backlog]:
        """What waits in these routes and could have been claimed for at least so long. Counts: for few routes.

        Since when: for a delayed task since it was due, for one behind another since that one succeeded, for one that
        was given back or requeued since then.
        """
        ...


class Engine(Sender, Controls, Schedules, Joinable, Files, Roster, Protocol):
    """What a worker needs. Every write names its lease, and is refused when the task has moved on."""

    async def claim(self, claim: Claim) -> list[Task]:
        """Take due tasks, higher priority first, then in the order stored; each attempt is counted here.

        What is paused or set aside is left alone, no limit is passed, and what has expired is cancelled, with those
        behind it. A record that cannot be read is set aside, and the others are taken. Returned without failures.
        """
        ...

    async def heartbeat(self, beats: Sequence[Heartbeat], *, lease: timedelta) -> list[Held]:
        """Renew leases. What is not in the answer is lost. May be called from another thread and event loop."""
        ...

    async def finish(self, settled: Sequence[Settled]) -> list[Lease]:
        """Store how attempts ended, and what that means for the tasks behind them. Returns the refused leases.

        Where very many come behind them, some of those may be decided on a little later.
        """
        ...

    async def expired(self, limit: int) -> list[Task]:
        """Running tasks whose lease has run out, or whose worker is known to be dead: its leases end at LEASE_ENDED.

        Without their failures.
        """
        ...

    async def put_right(self, lease: timedelta) -> bool:
        """Bring back what was written while the clock was more than three hours ahead (``core.correction``).

        Waits, leases and schedules go on from now; no other lease is longer than this one. Returns whether there was
        anything. Cheap where there is not.
        """
        ...

    async def requeue(self, ids: Sequence[str]) -> list[Task]:
        """Queue finished tasks again, and bring back those cancelled for their sake. Returns the queued ones.

        Not those whose unique key another task has meanwhile. Many are queued in pieces, each of them atomic.
        """
        ...

    async def find(self, query: Query) -> list[Task]:
        """List tasks, newest first. Their failures come without tracebacks, for which ``get`` is asked."""
        ...

    async def stats(self) -> Stats:
        """Count tasks."""
        ...

    async def prune(self, limit: int) -> int:
        """Delete finished tasks whose retention is over, at most ``limit``, and their files. Returns how many tasks."""
        ...

    async def backup(self, path: Path) -> None:
        """Write a copy of all tasks as they stand at one instant to a file, which replaces one that is there.

        Raises EngineError: for the path of the tasks themselves, and where tasks are kept in no file.
        """
        ...

    async def wait(self, timeout: timedelta) -> None:
        """Return when there may be something to claim: since the last claim, or from now on. Only a hint."""
        ...
