"""Hand tasks to a fleet of other software. Every function runs in a transaction that others share."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from afterwards.core import dispatching, limits
from afterwards.core.dispatching import Ahead, Mark
from afterwards.core.task import Lease, Task
from afterwards.engine import Claim, Dispatch, Dispatched
from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.io.connection import Connection, Look
from afterwards.engines.sqlite.io.operation import FunctionOperation, Operation, Turn
from afterwards.engines.sqlite.operations import claiming, finishing
from afterwards.engines.sqlite.operations.claiming import Place
from afterwards.engines.sqlite.operations.limiting import Rooms
from afterwards.engines.sqlite.operations.skip_scan import INNOCENT, SUSPECT, bundles
from afterwards.engines.sqlite.shapes import LATEST

MARKED = """
    SELECT seq, id, afterwards_tasks.attempt, at, sent
    FROM afterwards_tasks LEFT JOIN afterwards_dispatches
        ON task = id AND afterwards_dispatches.attempt = afterwards_tasks.attempt + 1
    WHERE seq IN ({places})
"""

MARK = "INSERT OR REPLACE INTO afterwards_dispatches (task, attempt, at, sent) VALUES {rows}"

ARRIVED = """
    WITH old (task, attempt) AS (VALUES {rows})
    DELETE FROM afterwards_dispatches WHERE (task, attempt) IN (SELECT task, attempt FROM old)
"""

LAST_ATTEMPT = 2**63 - 1
"""The largest number that a column holds. What arrives may name any."""

LATEST_MARK = LATEST - rows.from_span(dispatching.FORGOTTEN_AFTER)
"""The latest instant of a mark, so that the instant of the next dispatch is one, too."""

_queue_of: Callable[[Place], str] = itemgetter(4)


class Plan(NamedTuple):
    """The tasks to send: their places, best first, each with its mark, or None if its row cannot be read."""

    marks: dict[int, Mark | None]
    more: bool
    room_at: datetime | None  # when a used-up rate lets another task start


class DispatchTasks(Operation[Dispatched]):
    """Mark tasks as sent. It needs no transaction if all that could start are on their way."""

    __slots__ = ("_again", "_ahead", "_submit")

    turn = Turn.CLAIM
    may_be_needless = True

    def __init__(self, ahead: Claim, again: timedelta, submit: Callable[[Sequence[Operation[Any]]], None]) -> None:
        super().__init__()
        self._ahead = ahead
        self._again = again
        self._submit = submit

    @property
    def abandoned(self) -> bool:
        """Return True if the caller was cancelled: nobody would send the tasks."""
        return self.future is not None and self.future.cancelled()

    def is_needed(self, connection: Connection) -> bool:
        look = connection.look()
        if look.due or look.overdue:
            return True
        plan = _plan(connection, self._ahead, self._again, look)
        self.result = Dispatched([], plan.more)
        connection.room_at = plan.room_at
        return bool(plan.marks) or connection.odd_lanes

    def run(self, connection: Connection) -> Dispatched:
        look = finishing.look_without_overdue(connection)
        if look.overdue:
            return Dispatched([], more=True)
        return _dispatch(connection, self._ahead, self._again, claiming.promote(connection, look))

    def take_back(self, result: Dispatched) -> None:
        unsent = [one.lease for one in result.tasks]
        self._submit([FunctionOperation(partial(arrived, leases=unsent))])


def arrived(connection: Connection, leases: Collection[Lease]) -> None:
    """Forget dispatches: they are on their way no more."""
    named = [(rows.key(one.task_id), one.attempt) for one in leases if 0 < one.attempt <= LAST_ATTEMPT]
    many.update(connection, ARRIVED, named)


def _dispatch(connection: Connection, ahead: Claim, again: timedelta, look: Look) -> Dispatched:
    plan, tasks = Plan({}, True, None), dict[int, Task]()
    for _ in claiming.searches(connection):
        plan = _plan(connection, ahead, again, look)
        tasks = claiming.as_taken(connection, ahead, [*plan.marks])  # nothing is sent that a claim could not read
    marks = [mark for seq in tasks if (mark := plan.marks[seq])]
    many.insert(connection, MARK, [_from_mark(mark) for mark in marks])
    connection.room_at = plan.room_at
    sent = [Dispatch(lease=task.lease, queue=task.queue, priority=task.priority) for task in tasks.values()]
    return Dispatched(sent, plan.more)


def _plan(connection: Connection, ahead: Claim, again: timedelta, look: Look) -> Plan:
    claim = replace(ahead, suspects=ahead.limit)
    rooms, admitted = Rooms(connection, claim), Ahead(ahead.limit)
    queues = len({bundle.queue for one in (INNOCENT, SUSPECT) for bundle in bundles(connection, claim, look, one)})
    places = sorted(claiming.places(connection, claim, look, rooms, queues=queues))
    candidates = ((place, place[2] == SUSPECT, place[3]) for place in places)
    seqs = [place[1] for place in admitted.admit(candidates, rooms.known, _queue_of)]
    room_at = limits.next_room(rooms.known.values())
    return Plan(_marks(connection, seqs, again), admitted.more, room_at)


def _marks(connection: Connection, seqs: Sequence[int], again: timedelta) -> dict[int, Mark | None]:
    """Return those of the tasks at these places that are to be sent, each with its new mark."""
    found = {seq: rest for seq, *rest in many.select(connection, MARKED, seqs)}
    leases = {seq: _next_lease(*found[seq][:2]) for seq in seqs if seq in found}
    known = {lease: mark for seq, lease in leases.items() if lease and (mark := _to_mark(lease, *found[seq][2:]))}
    to_send = dispatching.to_send(filter(None, leases.values()), known, again, connection.now)
    marks = {mark.lease: mark for mark in to_send}
    return {seq: lease and marks[lease] for seq, lease in leases.items() if lease is None or lease in marks}


def _next_lease(id: Any, attempt: Any) -> Lease | None:
    """Return the lease that a claim of the row would have, None if the row cannot be read."""
    readable = isinstance(id, bytes) and isinstance(attempt, int) and attempt < LAST_ATTEMPT
    return Lease(rows.to_id(id), attempt + 1) if readable else None


def _to_mark(lease: Lease, at: Any, sent: Any) -> Mark | None:
    """Return the mark in a row, None if there is none, or it cannot be read: the task is then sent again."""
    readable = isinstance(at, int) and isinstance(sent, int) and 0 <= at <= LATEST_MARK and 0 < sent < LAST_ATTEMPT
    return Mark(lease=lease, at=rows.to_instant(at), sent=sent) if readable else None


def _from_mark(mark: Mark) -> rows.Row:
    return rows.key(mark.lease.task_id), mark.lease.attempt, rows.from_instant(mark.at), mark.sent
