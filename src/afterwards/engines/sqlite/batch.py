"""What most transactions do, as one statement: store tasks that begin at once, and that others have succeeded; or store
tasks for anybody.

A statement lets go of the interpreter, and waits to have it back: for 5 ms (``sys.getswitchinterval``), where an event
loop is busy. One that is a transaction by itself waits once, and the event loop goes on while the disk syncs.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import cache
from itertools import chain, count, islice
from typing import Any

from afterwards.core.lifecycle import Settled
from afterwards.core.task import Lease, NewTask, State, Task
from afterwards.engine import Claim
from afterwards.engines.sqlite import rows, statements
from afterwards.engines.sqlite.io.connection import BATCHES, OwnConnection
from afterwards.engines.sqlite.operations import finishing, storing

SIZES = (0, 1, 4, 16, 32, 64, 128)
"""How many tasks of either kind one statement names, so that few are ever prepared."""

MOST_WAITING = BATCHES[0]
"""How many tasks that are leased to nobody one statement stores."""

SHORTEST_LEASE = timedelta(seconds=10)
"""For a shorter one it would matter that the statement may wait a second for other connections before it stores it."""

OF_A_TASK = ("id", "name", "arguments", "queue", "priority", "retention", "origin")
OF_A_SUCCESS = ("ended", "attempt", "failed", "crashed", "result")

# Nothing is bound as None, for which sqlite3 looks for an adapter: that takes a microsecond each.
_NO_TASK, _NO_SUCCESS = (0,) * len(OF_A_TASK), (0,) * len(OF_A_SUCCESS)


class Batch:
    """What one statement is to do. A method that returns None has found something that takes more than that."""

    def __init__(self, connection: OwnConnection) -> None:
        self._connection = connection
        self._claim: Claim | None = None
        self._begun: list[Task] = []
        self._settled: list[Settled] = []
        self._waiting: list[Task] = []
        self._columns: tuple[str, ...] = ()
        self._values: list[list[Any]] = []

    @property
    def queued(self) -> bool:
        """Whether what it stores can be claimed."""
        return any(task.state is State.QUEUED for task in self._waiting)

    @property
    def due(self) -> int | None:
        """When the first of the scheduled tasks that it stores is due, in microseconds."""
        return min((rows.from_instant(task.run_at) for task in self._waiting if task.run_at), default=None)

    def enqueue(self, tasks: Sequence[NewTask], claim: Claim | None) -> list[Task] | None:
        """The tasks as they will be stored: leased to the worker, which must be the same for all, or to nobody."""
        if claim is None:
            return self._enqueue_for_anybody(tasks)
        if self._waiting or len(tasks) > claim.limit or claim.lease < SHORTEST_LEASE:
            return None
        if len(self._begun) + len(tasks) > SIZES[-1] or not all(_begins_at_once(new, claim) for new in tasks):
            return None
        same = self._claim = self._claim or claim
        if (same.worker, same.lease) != (claim.worker, claim.lease):
            return None
        begun = [storing.at_once(self._connection, new, claim) for new in tasks]
        self._begun += begun
        return begun

    def finish(self, settled: Sequence[Settled]) -> list[Lease] | None:
        """The leases that will be refused, which are none."""
        if (
            self._waiting
            or len(self._settled) + len(settled) > SIZES[-1]
            or not all(map(finishing.is_plain_success, settled))
        ):
            return None
        self._settled += settled
        return []

    def _enqueue_for_anybody(self, tasks: Sequence[NewTask]) -> list[Task] | None:
        """Where nothing else is to be done: what is queued or scheduled needs no look at other tasks."""
        if self._begun or self._settled or len(self._waiting) + len(tasks) > MOST_WAITING:
            return None
        if not all(map(_is_plain, tasks)):
            return None
        waiting = [storing.at_once(self._connection, new, None) for new in tasks]
        for new, task in zip(tasks, waiting, strict=True):
            columns, values = rows.from_new(task, at_an_instant=new.run_at is not None)
            if columns != (self._columns or columns):
                return None
            self._columns = columns
            self._values.append(values)
        self._waiting += waiting
        return waiting

    def write(self) -> bool:
        """Do it, and commit. Returns False when it takes more than that: then nothing was done."""
        try:
            return self._store_waiting() if self._waiting else self._write()
        except sqlite3.IntegrityError:  # a trigger has refused, or a task is stored already
            return False

    def _store_waiting(self) -> bool:
        self._connection.execute(
            statements.insert(self._columns, len(self._values)), [*chain.from_iterable(self._values)]
        )
        return True

    def _write(self) -> bool:
        begun, succeeded = _size(len(self._begun)), _size(len(self._settled))
        values = [*self._of_all(), *chain.from_iterable(map(_of_a_task, self._begun))]
        values += _NO_TASK * (begun - len(self._begun))
        values += chain.from_iterable(map(_of_a_success, self._settled))
        values += _NO_SUCCESS * (succeeded - len(self._settled))
        if len(values) > self._connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER):
            return False
        self._connection.execute(_statement(begun, succeeded), values)
        return True

    def _of_all(self) -> tuple[Any, ...]:
        connection, claim = self._connection, self._claim
        return (
            (connection.instant, claim.worker, connection.after(claim.lease)) if claim else (connection.instant, 0, 0)
        )


def _begins_at_once(new: NewTask, claim: Claim) -> bool:
    """Whether nothing but the worker decides whether it begins."""
    return claim.could_lease(new) and new.run_at is None and not new.wait and _is_plain(new)


def _is_plain(new: NewTask) -> bool:
    """Whether it comes behind none, and nothing that is stored may answer for it."""
    return new.after is None and new.failure is None and not storing.has_rules(new) and not rows.has_more(new)


def _of_a_task(task: Task) -> tuple[Any, ...]:
    key, retention = rows.key_to_store(task.id), rows.from_span(task.retention)
    return key, task.name, task.arguments, task.queue, task.priority, retention, task.origin or ""


def _of_a_success(settled: Settled) -> tuple[Any, ...]:
    lease = settled.lease
    return rows.key(lease.task_id), lease.attempt, settled.failed, settled.crashed, settled.result or ""


def _size(tasks: int) -> int:
    return next(size for size in SIZES if size >= tasks)


@cache
def _statement(begun: int, succeeded: int) -> str:
    """The statement for so many of either kind; what holds for all of it is bound once."""
    numbers = (f"?{number}" for number in count(4))
    no_task, no_success = ", 0" * len(OF_A_TASK), ", 0" * len(OF_A_SUCCESS)
    written = [f"('look', ?1, ?2, ?3{no_task}{no_success})"]
    written += [f"('begin', ?1, ?2, ?3{row}{no_success})" for row in _rows(begun, len(OF_A_TASK), numbers)]
    written += [f"('succeed', ?1, 0, 0{no_task}{row})" for row in _rows(succeeded, len(OF_A_SUCCESS), numbers)]
    columns = ", ".join(("does", "at", "worker", "lease_until", *OF_A_TASK, *OF_A_SUCCESS))
    return f"INSERT INTO afterwards_batch ({columns}) VALUES {', '.join(written)}"


def _rows(many: int, columns: int, numbers: Iterator[str]) -> list[str]:
    return ["".join(f", {number}" for number in islice(numbers, columns)) for _ in range(many)]
