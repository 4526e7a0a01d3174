"""An engine keeps tasks: its protocols, and the values that they exchange.

**Lists.** Every method takes all that there is to do at once, and does it in a bounded number of statements, however
long the list. An empty list is allowed, and does nothing.

**Atomic.** What one call does is done as a whole, or not at all, and other calls see it as a whole; where a method says
"in pieces", each piece is. A call that raises EngineUnavailable may have been done all the same: every method may be
called again with the same arguments (ids are the caller's, leases fence).

**Errors.** EngineUnavailable for a store that is away for now, EngineError for what waiting does not mend, QueueFull
where it is named. Errors of a driver do not get out. A record that cannot be read hinders no other one.

**Rules** are in ``core``: an engine loads a set, applies one, and stores what it returns. A statement that decides by
itself is a translation of such a rule.

**Time.** The engine has a clock of its own, and all instants that it stores are of that one. It may be put back.

**Threads and loops.** Any thread and any event loop may call any method, also several at a time: requests come on the
server's loop, heartbeats from a thread with a loop of its own, tests and scripts on loops that are gone after one
call. So nothing of an engine may belong to the loop of a caller. An engine whose driver has connections that belong
to a loop runs one private loop, in a thread of its own, and hands each call over to it, as the SQLite engine hands
them to the thread that writes. That costs 0.1 to 0.3 ms of latency for a call, less than a round trip over a
network. A pool for each loop would save it, and cost connections for each, which nobody could close after a loop was
closed; and calls of many requests would no longer meet in one place, where they share a transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from afterwards.core.claim import Claim as Claim  # where an engine's callers look for them
from afterwards.core.claim import Paused as Paused
from afterwards.core.lifecycle import Settled, Start
from afterwards.core.progress import Progress
from afterwards.core.routing import LiveWorker, Unroutable
from afterwards.core.schedule import StoredSchedule
from afterwards.core.task import Lease, NewTask, State, Task


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

    file: str  # the file's id, a UUID as those of tasks
    task: str  # whose argument it is; stored after it
    number: int  # from 0, without a gap
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which tasks to list, newest first. None means any.

    ``before`` continues below a task that was listed; below an id that no stored task has, there is nothing.
    """

    states: frozenset[State] | None = None
    names: frozenset[str] | None = None
    queues: frozenset[str] | None = None
    before: str | None = None
    idempotency_keys: frozenset[str] | None = None
    set_aside: bool = False  # only what is set aside
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How many tasks stand where, and the age of the oldest queued one."""

    counts: Mapping[tuple[str, State], int]  # by queue and state; zero is left out
    oldest: timedelta | None  # since it was stored; what is set aside is left out


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


@dataclass(frozen=True, slots=True)
class Fire:
    """One instant of a schedule, and the task that it stands for."""

    schedule: str  # the task function's name
    at: datetime
    task: NewTask


class Sender(Protocol):
    """What a process needs that adds tasks and asks about them."""

    async def enqueue(self, tasks: Sequence[NewTask], *, claim: Claim | None = None) -> list[Task]:
        """Store tasks, all or none, in this order; one whose id is stored already is left as it is.

        With ``claim``, those that could start at once are stored as running and leased to it, as long as no task that
        it could take is queued or due, and neither a limit nor a pause is in the way. An expired or suspect task counts
        as queued here until a claim has dealt with it. Returns the tasks as stored; where a
        uniqueness rule answers, the task that was there: its id stands for both from then on. When it returns they
        survive what the engine promises. Raises QueueFull when a queue has as many as a task's ``max_queued``.
        """
        ...

    async def refuse_full(self, tasks: Sequence[NewTask]) -> None:
        """Raise QueueFull if ``enqueue`` would, and store nothing: asked before what a task needs is written."""
        ...

    async def publish(self, starts: Sequence[tuple[Lease, Start]]) -> None:
        """Queue held tasks, for their request has ended: at once, or when they shall start, if that is to come.

        A span keeps a task back whose request still goes on. A lease that is not the task's any more is passed over.
        """
        ...

    async def get(self, ids: Sequence[str]) -> list[Task]:
        """The tasks that exist, in the order asked for, each as often as it is asked for.

        The id of a call that another task answered gives that task, here, in ``cancel`` and in ``requeue``.
        """
        ...

    async def cancel(self, ids: Sequence[str], reason: str) -> list[Task]:
        """Cancel tasks, and those behind them; a running one is asked to stop. Returns what ``get`` would.

        Many are cancelled in pieces, each of them atomic, so that others get their turn.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Leasing(Protocol):
    """What a worker needs. Every write names its lease, and is refused when the task has moved on."""

    async def claim(self, claim: Claim) -> list[Task]:
        """Take due tasks, higher priority first, then in the order stored; each attempt is counted here.

        What is paused or set aside is left alone, no limit is passed, and what has expired is cancelled, with those
        behind it. A record that cannot be read is set aside, and the others are taken. Returned without failures.
        """
        ...

    async def heartbeat(self, beats: Sequence[Heartbeat], *, lease: timedelta) -> list[Held]:
        """Renew leases. What is not in the answer is lost."""
        ...

    async def finish(self, settled: Sequence[Settled]) -> list[Lease]:
        """Store how attempts ended, and what that means for the tasks behind them. Returns the refused leases.

        The ``then`` of an attempt is stored as by ``enqueue``; it has no ``max_queued``, so no queue refuses it.
        Where very many come behind them, some of those may be decided on a little later.
        """
        ...

    async def expired(self, limit: int) -> list[Task]:
        """Running tasks whose lease has run out, or whose worker is known to be dead: its leases end at LEASE_ENDED.

        An engine that cannot know of dead workers waits for their leases. In any order, without their failures.
        """
        ...

    async def put_right(self, lease: timedelta) -> bool:
        """Bring back what was written while the clock was more than three hours ahead (``core.clock_correction``).

        Waits, leases and schedules go on from now, and workers were seen no later; no other lease is longer than this
        one. Returns whether there was anything. Cheap where there is not.
        """
        ...

    async def wait(self, timeout: timedelta) -> None:
        """Return when there may be something to claim: since the last claim, or from now on. Only a hint.

        It returns when a task is queued, also by ``publish``, ``finish``, ``requeue`` and ``fire``; when an end leaves
        room under a limit; on ``resume``; and when a scheduled task is due, or a rate has room that had none in the
        last claim. The time until these is read from the engine's clock as the wait begins, and is waited for in real
        time.
        """
        ...


class Controls(Protocol):
    """What people ask, stop and start by hand. What runs already goes on."""

    async def find(self, query: Query) -> list[Task]:
        """List tasks, newest first. Their failures come without tracebacks, for which ``get`` is asked."""
        ...

    async def stats(self) -> Stats:
        """Count tasks."""
        ...

    async def requeue(self, ids: Sequence[str]) -> list[Task]:
        """Queue finished tasks again, and bring back those cancelled for their sake. Returns the queued ones.

        Not those whose unique key another task has meanwhile. Many are queued in pieces, each of them atomic.
        """
        ...

    async def prune(self, limit: int) -> int:
        """Delete finished tasks whose retention is over, at most ``limit``, and their files. Returns how many tasks.

        In pieces. Also deletes files whose task never came, and forgets workers that were not seen for a day.
        """
        ...

    async def pause(self, paused: Paused) -> None:
        """Pause these, too. A schedule that is not kept is passed over; what one has stored already is left alone."""
        ...

    async def resume(self, paused: Paused) -> None:
        """Pause these no longer. Schedules fire from now on: what was missed meanwhile is over with."""
        ...

    async def paused(self) -> Paused:
        """All that is paused."""
        ...


class Schedules(Protocol):
    """The schedules of task functions, by the function's name."""

    async def register_schedules(self, expressions: Mapping[str, str]) -> list[StoredSchedule]:
        """Keep these schedules, too. Returns all that are kept, by name.

        One that is new, or has another expression, begins now; the others stay as they are. Cheap where nothing is
        new: whoever only wants to know gives none.
        """
        ...

    async def fire(self, fires: Sequence[Fire]) -> list[Task]:
        """Store the task of each fire that is later than all before it, unless the schedule is paused.

        Both in one transaction, so that any number of processes may try: each fire time has one task at most, also
        after that was pruned. The tasks have no ``max_queued``. Returns those of the fires that were let through, in
        their order, as ``enqueue`` does; where a uniqueness rule answers, the task that was there.
        """
        ...


class Files(Protocol):
    """Where the contents of uploaded files are kept, in chunks, for as long as their tasks."""

    async def write_chunks(self, chunks: Sequence[Chunk]) -> None:
        """Store chunks, all or none; one that is stored already is replaced.

        ``prune`` deletes them together with their task; after a day, also those whose task was never stored.
        """
        ...

    async def read_chunks(self, file: str, *, start: int, limit: int) -> list[bytes]:
        """The contents of a file's chunks from this number on, in order. None of them: no such file, or its end."""
        ...

    async def delete_files(self, tasks: Sequence[str]) -> None:
        """Delete the files of tasks that were refused. Those of a task that is stored are kept."""
        ...


class Workers(Protocol):
    """The workers that live, and what waits for one."""

    async def announce(self, workers: Sequence[LiveWorker]) -> None:
        """Note that these workers are seen now, or have just left; one that is known is noted as it is now.

        ``prune`` forgets them after a day.
        """
        ...

    async def workers(self, since: timedelta) -> list[LiveWorker]:
        """Those that were seen within this span, by start and id; also those that have left."""
        ...

    async def unroutable(self, waited: timedelta) -> list[Unroutable]:
        """What could have been claimed for at least so long, and no worker that was seen meanwhile would take.

        The longest waiting first; what is paused or set aside is left out, and a worker that has left within the span
        counts. Since when: for a delayed task since it was due, for one behind another since that one succeeded, for
        one that was given back, requeued or brought back since then.
        Cheap where all is served, however much waits.
        """
        ...


class Joinable(Protocol):
    """An engine whose tasks may lie beside the application's own rows."""

    def join(self, transaction: Transaction) -> Joined | None:
        """Take part in a transaction; None when it is on another database than the tasks. May be called in any thread.

        The engine need not be open. Called when the transaction is about to be committed.
        """
        ...


class Engine(Sender, Leasing, Controls, Schedules, Files, Workers, Joinable, Protocol):
    """Where tasks are kept."""


@runtime_checkable
class InAFile(Protocol):
    """An engine that keeps its tasks in a file. No server does: its own tools copy what it has."""

    async def backup(self, path: Path) -> None:
        """Write a copy of all tasks as they stand at one instant to a file, which replaces one that is there.

        Raises EngineError for the path of the tasks themselves.
        """
        ...
