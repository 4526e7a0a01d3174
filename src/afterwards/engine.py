"""The protocols of an engine, which keeps tasks, and the values that they exchange.

**Lists.** Every method takes a whole list and handles it in a bounded number of statements, however long the list. An
empty list is allowed, and does nothing.

**Atomic.** A call takes effect as a whole or not at all, and other calls see it as a whole. Where a method says "in
pieces", this holds for each piece. A call that raises EngineUnavailable may still have taken effect: every method may
be called again with the same arguments (ids are the caller's, leases fence).

**Errors.** A method raises EngineUnavailable if the store is temporarily away, EngineError if waiting does not help,
and QueueFull where its docstring names it. Errors of a driver are never passed on. A record that cannot be read does
not affect others.

**Rules** are in ``core``: an engine loads a set, applies a rule, and stores what it returns. A statement that decides
by itself is a translation of such a rule.

**Time.** The engine has its own clock, and all instants that it stores are read from it. The clock may be set back.

**Threads and loops.** Any thread and any event loop may call any method, also several at a time: requests come on the
server's loop, heartbeats from a thread with its own loop, tests and scripts on loops that end after one call. So
nothing in an engine may belong to the loop of a caller. An engine whose driver binds its connections to a loop runs one
private loop in its own thread and hands each call over to it, as the SQLite engine hands calls to the thread that
writes. That costs 0.1 to 0.3 ms of latency for a call, less than a round trip over a network. A pool for each loop
would save that, but would cost connections for each loop, and nobody could close them after the loop was closed. The
calls of many requests would also no longer meet in one place, where they share a transaction.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from afterwards.core.chunk import Chunk as Chunk  # callers of an engine import its values from here
from afterwards.core.claim import Claim as Claim
from afterwards.core.claim import Paused as Paused
from afterwards.core.dispatching import Dispatch as Dispatch
from afterwards.core.dispatching import Dispatched as Dispatched
from afterwards.core.heartbeat import Heartbeat as Heartbeat
from afterwards.core.heartbeat import Held as Held
from afterwards.core.lifecycle import Start
from afterwards.core.moving import Arrived as Arrived
from afterwards.core.moving import Batch as Batch
from afterwards.core.moving import PutBack as PutBack
from afterwards.core.queries import Query as Query
from afterwards.core.queries import Stats as Stats
from afterwards.core.routing import LiveWorker, Unroutable
from afterwards.core.schedule import Fire as Fire
from afterwards.core.schedule import StoredSchedule
from afterwards.core.settling import Settled
from afterwards.core.tallies import Tally
from afterwards.core.task import Lease, NewTask, Task


class Answer(NamedTuple):
    """The result of a statement."""

    rows: Sequence[Any]
    changed: int


class Transaction(Protocol):
    """A transaction of the application, which will commit it or roll it back."""

    @property
    def dialect(self) -> str:
        """The kind of its database, such as ``sqlite`` or ``postgresql``."""
        ...

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Answer:
        """Run a statement of the database's driver. The driver's errors are passed on unchanged."""
        ...


class CommitMode(Enum):
    """The way in which the statements of a transaction are committed."""

    TOGETHER = auto()
    IN_TWO_PHASES = auto()
    """Prepared, and committed later, perhaps by another process."""
    ONE_BY_ONE = auto()
    """Each at once: no transaction is open."""


@runtime_checkable
class HasCommitMode(Protocol):
    """A transaction that tells how it is committed. Others are committed as a whole."""

    @property
    def commit_mode(self) -> CommitMode: ...


class Joined(Protocol):
    """An engine in a transaction of the application."""

    def enqueue(self, tasks: Sequence[NewTask]) -> list[Task]:
        """Store tasks, in this order, as part of the transaction. Returns them as stored."""
        ...

    def committed(self) -> None:
        """Wake workers that wait for tasks, because the transaction was committed. Only a hint."""
        ...


class Sender(Protocol):
    """The methods for a process that adds tasks and asks about them."""

    async def enqueue(self, tasks: Sequence[NewTask], *, claim: Claim | None = None) -> list[Task]:
        """Store tasks, all or none, in this order. A task whose id is stored already is left unchanged.

        With ``claim``, tasks that could start at once are stored as running and leased to it, as long as no task that
        it could take is queued or due, and no limit or pause forbids it. An expired or suspect task counts as queued
        here until a claim has dealt with it.

        Returns the tasks as stored. Where a uniqueness rule applies, it returns the existing task, and from then on
        both ids stand for that task. When it returns, the tasks are as durable as the engine promises. Raises QueueFull
        if a queue has as many tasks as a task's ``max_queued``.
        """
        ...

    async def refuse_full(self, tasks: Sequence[NewTask]) -> None:
        """Raise QueueFull if ``enqueue`` would, and store nothing. Called before data that a task needs is written."""
        ...

    async def publish(self, starts: Sequence[tuple[Lease, Start]]) -> None:
        """Queue held tasks whose request has ended: at once, or at their start time if that is in the future.

        A span holds back a task whose request still goes on. A lease that is no longer the task's is skipped.
        """
        ...

    async def get(self, ids: Sequence[str]) -> list[Task]:
        """Return the tasks that exist, in the order of the ids; an id given twice gives its task twice.

        The id of a call that another task answered stands for that task, here and in all methods for people.
        """
        ...

    async def cancel(self, ids: Sequence[str], reason: str) -> list[Task]:
        """Cancel tasks, and those behind them. A running task is asked to stop. Returns what ``get`` would return.

        Many tasks are cancelled in pieces, each of them atomic, so that other calls get their turn.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Leasing(Protocol):
    """The methods for a worker. Every write names its lease, and is refused if the task has moved on."""

    async def claim(self, claim: Claim) -> list[Task]:
        """Lease due tasks: higher priority first, then in the order stored. Each attempt is counted here.

        Paused and set-aside tasks are skipped, and no limit is exceeded. Expired tasks are cancelled, with those behind
        them. A record that cannot be read is set aside, and the others are taken. The tasks are returned without
        failures.
        """
        ...

    async def heartbeat(self, beats: Sequence[Heartbeat], *, lease: timedelta) -> list[Held]:
        """Renew leases. A lease that is not in the answer is lost."""
        ...

    async def finish(self, settled: Sequence[Settled]) -> list[Lease]:
        """Store how attempts ended, and decide on the tasks behind them. Returns the refused leases.

        A refused end of an attempt that was recorded as crashed is recorded as one more failure (``history.late``).
        The ``then`` of an attempt is stored as by ``enqueue``; it has no ``max_queued``, so no queue refuses it. If
        very many tasks are behind the attempts' tasks, some of them may be decided on a little later.
        """
        ...

    async def expired(self, limit: int) -> list[Task]:
        """Return running tasks whose lease has run out, or whose worker is known to be dead.

        The leases of a dead worker end at LEASE_ENDED. An engine that cannot detect dead workers waits for their leases
        to run out. The tasks come in any order, without their failures.
        """
        ...

    async def put_right(self, lease: timedelta) -> bool:
        """Correct what was written while the clock was more than three hours ahead (``core.clock_correction``).

        Waits, leases and schedules go on from now, no queued task became claimable later than now, and no worker was
        seen later than now. Attempts and tasks that ended later than now count as ended now, and files that no task
        claims are kept as long as if they were written now. A lease that ends more than three hours after one of the
        span ``lease`` is shortened to that. Many tasks are corrected in pieces. Returns whether there was anything to
        correct. Cheap if there was not: an engine may ask only of the record that is kept for the longest whether any
        task ended later than now, if nothing else is wrong.
        """
        ...

    async def wait(self, timeout: timedelta) -> None:
        """Return when there may be something to claim or dispatch: since that was last done, or from now on. A hint.

        It returns when a task is queued, also by ``publish``, ``finish``, ``requeue`` and ``fire``; when the end of an
        attempt leaves room under a limit; on ``resume``; when a scheduled task is due; and when a rate that had no room
        in the last claim has room. The time until the last two is read from the engine's clock when the wait begins,
        and is waited for in real time.
        """
        ...


class Dispatching(Protocol):
    """The method for a dispatcher, which hands tasks to a fleet of other software instead of running them."""

    async def dispatch(self, ahead: Claim, *, again: timedelta) -> Dispatched:
        """Return tasks that are to be sent to a fleet now, in the order of a claim. Nothing is leased.

        Those are the tasks that a worker could claim that has ``ahead.limit`` free slots for each queue and may take
        any number of suspects, without those that are on their way: a dispatched task is, until a claim names its
        lease in ``starts``, whether it got the task or not, and at most for the span ``again`` (a day at most). The
        span is doubled each time that the same attempt is dispatched in vain, to at most an hour. So tasks that are
        already on their way count against limits, too. Any number of processes may dispatch.

        Like a claim, it queues due tasks, and cancels expired ones. The rule is ``core.dispatching``.
        """
        ...


class Controls(Protocol):
    """The methods for people, who query, stop and start by hand. Tasks that already run go on."""

    async def find(self, query: Query) -> list[Task]:
        """List tasks, newest first. Their failures come without tracebacks, which ``get`` returns, as it does logs."""
        ...

    async def stats(self) -> Stats:
        """Return the number of tasks in each queue and state, and the time that the longest waiting has been claimable.

        That time is never negative, and None if no task is claimable. A delayed task is claimable since it was due, as
        in ``unroutable``; paused tasks count, set-aside tasks do not.
        """
        ...

    async def count(self, query: Query) -> int:
        """Return the number of tasks that match, at most ``query.limit``. ``query.before`` applies, too."""
        ...

    async def tallies(self, since: timedelta, step: timedelta) -> list[Tally]:
        """Return how many attempts have ended within this span until now, by steps of time, the oldest first.

        ``step`` is a whole number of minutes. The first step may have begun before the span. Steps without any end are
        left out. Counted are ends that ``finish`` accepts (``core.tallies``); they outlive their tasks, for KEPT.
        """
        ...

    async def requeue(self, ids: Sequence[str]) -> list[Task]:
        """Queue finished tasks again, and bring back those cancelled because of them. Returns the queued ones.

        A task is left out if another task has its unique key meanwhile. Many are queued in pieces, each of them atomic.
        """
        ...

    async def start_now(self, ids: Sequence[str]) -> list[Task]:
        """Queue tasks whose time has not come yet: delayed, retried and snoozed ones. Returns them as they are now.

        Many are queued in pieces, each of them atomic.
        """
        ...

    async def delete(self, ids: Sequence[str]) -> list[str]:
        """Delete finished tasks with their files, and leave others unchanged. Returns the ids of the deleted ones.

        Many are deleted in pieces, each of them atomic.
        """
        ...

    async def prune(self, limit: int) -> int:
        """Delete at most ``limit`` finished tasks whose retention is over, and their files. Returns how many tasks.

        It works in pieces. It also deletes files whose task was never stored, and forgets workers not seen for a day.
        """
        ...

    async def pause(self, paused: Paused) -> None:
        """Pause these, too. An unknown schedule is skipped. Tasks that a schedule has stored are not affected."""
        ...

    async def resume(self, paused: Paused) -> None:
        """End these pauses. Schedules fire from now on; fires missed during the pause are skipped."""
        ...

    async def paused(self) -> Paused:
        """Return everything that is paused."""
        ...


class Schedules(Protocol):
    """The schedules of task functions, by the function's name."""

    async def register_schedules(self, expressions: Mapping[str, str]) -> list[StoredSchedule]:
        """Register these schedules, too. Returns all registered schedules, by name.

        A schedule that is new, or has another expression, begins now; the others stay unchanged. Cheap if nothing is
        new: to get the registered schedules only, pass none.
        """
        ...

    async def fire(self, fires: Sequence[Fire]) -> list[Task]:
        """Store the task of each fire that is later than all earlier fires of its schedule, unless that is paused.

        Schedule and task are stored in one transaction, so that any number of processes may try: each fire time has at
        most one task, even after that task was pruned. The tasks have no ``max_queued``. Returns the tasks of the
        accepted fires, in their order, as ``enqueue`` does: where a uniqueness rule applies, the existing task.
        """
        ...


class Files(Protocol):
    """The contents of uploaded files, in chunks. They are kept as long as their tasks."""

    async def write_chunks(self, chunks: Sequence[Chunk]) -> None:
        """Store chunks, all or none. A chunk that is stored already is replaced.

        ``prune`` deletes them together with their task. After a day, it also deletes those whose task was never stored.
        """
        ...

    async def read_chunks(self, file: str, *, start: int, limit: int) -> list[bytes]:
        """Return the contents of a file's chunks from ``start`` on, in order. Empty means no such file, or its end."""
        ...

    async def delete_files(self, tasks: Sequence[str]) -> None:
        """Delete the files of refused tasks. The files of a stored task are kept."""
        ...


class Workers(Protocol):
    """The live workers, and the tasks that no worker would take."""

    async def announce(self, workers: Sequence[LiveWorker]) -> None:
        """Record that these workers are seen now, or have just left. The record of a known worker is replaced.

        ``prune`` forgets them after a day.
        """
        ...

    async def workers(self, since: timedelta) -> list[LiveWorker]:
        """Return the workers seen within this span, by start and id, including those that have left."""
        ...

    async def unroutable(self, waited: timedelta) -> list[Unroutable]:
        """Return tasks that have been claimable for at least ``waited``, and that no worker seen meanwhile would take.

        The longest waiting come first. Paused and set-aside tasks are left out. A worker that has left within the span
        counts. A delayed task is claimable since it was due, a task behind another since that one succeeded, and a task
        that was given back, requeued or brought back since then. Cheap if all tasks are served, however many wait.
        """
        ...


class Moving(Protocol):
    """The methods for ``afterwards move``, which takes everything over from one engine to another.

    A batch is in the source until the next call names it as done, so an interrupted move loses nothing. The destination
    remembers each batch, so it stores nothing twice, even if a task has ended and been pruned there meanwhile.
    """

    async def hand_over(self, to: str, *, limit: int, done: Batch | None = None) -> Batch | None:
        """Delete the batch ``done``, then take the next records out of the store, and keep them apart as a batch.

        Until a batch is done it is returned again, whatever ``to`` and ``limit`` are. No other method sees its tasks:
        their leases are refused. Pauses and schedules come first, then starts that count for rates and the counts of
        ``tallies``, at most ``limit`` of each, then chunks of files, then at most ``limit`` tasks, the newest first: a
        task comes after those behind it. Records that cannot be read stay. Returns None after the last one. Records
        stored after a batch was taken are found by a call without ``done``. A batch without records only says where to
        go on. Workers are not handed over, nor dispatches: the destination dispatches anew.
        """
        ...

    async def take_over(self, batch: Batch) -> Arrived:
        """Store the records of a batch, before all tasks that are stored here. The rule is ``core.moving.arrive``.

        A batch that was taken over before is ignored, even if its tasks are not stored any more. Tasks behind a
        finished one follow it. Wakes workers that wait for tasks.
        """
        ...

    async def put_back(self) -> PutBack | None:
        """Store the records of the batch that is not done here again, by the rule of ``take_over``.

        Its tasks come behind all that are stored here. The destination may have taken it over: nobody here can know.
        Returns None if there is no such batch.
        """
        ...


class Joinable(Protocol):
    """An engine whose tasks may be in the same database as the application's rows."""

    def join(self, transaction: Transaction) -> Joined | None:
        """Join a transaction. Returns None if it is on another database than the tasks. May be called in any thread.

        The engine need not be open. Called when the transaction is about to be committed.
        """
        ...


class Engine(Sender, Leasing, Dispatching, Controls, Schedules, Files, Workers, Moving, Joinable, Protocol):
    """A store of tasks."""


@runtime_checkable
class InAFile(Protocol):
    """An engine that keeps its tasks in a file. Servers do not implement this: they have their own backup tools."""

    async def backup(self, path: Path) -> None:
        """Write a copy of all tasks, as they are at one instant, to a file. An existing file is replaced.

        Raises EngineError for the path of the tasks themselves.
        """
        ...
