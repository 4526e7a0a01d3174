"""Store and publish tasks. Every function runs in a transaction that others share."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from afterwards.core import lifecycle
from afterwards.core.errors import QueueFull
from afterwards.core.fast_frozen import frozen
from afterwards.core.task import Lease, NewTask, State, Task
from afterwards.engine import Claim
from afterwards.engines.sqlite import rows
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import changing, claiming, reading
from afterwards.engines.sqlite.operations.duplicates import Twins

PUBLISH = """
    UPDATE afterwards_tasks SET state = 'queued', run_at = NULL, queued_at = ?
    WHERE id = ? AND attempt = ? AND state = 'scheduled'
"""

HOLD = "UPDATE afterwards_tasks SET run_at = ? WHERE id = ? AND attempt = ? AND state = 'scheduled'"

COUNT_PENDING = """
    SELECT sum(count) FROM (
        SELECT count(*) AS count FROM afterwards_tasks WHERE state = 'waiting' AND queue = ?
        UNION ALL
        SELECT count(*) FROM afterwards_tasks WHERE state = 'scheduled' AND queue = ?
        UNION ALL
        SELECT count(*) FROM afterwards_tasks
        WHERE state = 'queued' AND limit_key = '' AND suspect IN (0, 1) AND queue = ?
        UNION ALL
        SELECT count(*) FROM afterwards_tasks
        WHERE state = 'queued' AND limit_key != '' AND suspect IN (0, 1) AND queue = ?
    )
"""

Stored = tuple[list[Task] | QueueFull, list[Task]]
"""What stands for the tasks of a call, and which of them are new."""


def enqueue(connection: Connection, tasks: Sequence[NewTask], claim: Claim | None = None) -> Stored:
    """Inserts no row before the connection is flushed.

    A full queue is returned, not raised: nothing was written, and what shares the transaction goes on.
    """
    if claim and claiming.anything_for(connection, claim):
        claim = None  # what is stored already comes first
    if connection.careful or any(map(has_rules, tasks)):  # the call may be a repeated one
        return _enqueue_by_rules(connection, tasks, claim)
    stored: dict[str, Task] = {}
    made = _make(connection, tasks, stored, None, claim)
    _insert(connection, tasks, made)
    return [stored[new.id] for new in tasks], made


def has_rules(new: NewTask) -> bool:
    """Whether what is stored already may answer for it, or refuse it."""
    return new.unique_key is not None or new.idempotency_key is not None or new.max_queued is not None


def _enqueue_by_rules(connection: Connection, tasks: Sequence[NewTask], claim: Claim | None) -> Stored:
    made, stored, twins = _make_by_rules(connection, tasks, claim)
    if full := _full(connection, tasks, made):
        return full, []
    _insert(connection, tasks, made)
    if twins:
        twins.remember()
    return [stored[twins.answered.get(new.id, new.id) if twins else new.id] for new in tasks], made


def _make_by_rules(
    connection: Connection, tasks: Sequence[NewTask], claim: Claim | None
) -> tuple[list[Task], dict[str, Task], Twins | None]:
    """Make the records of new tasks, with what stands for each of them and what answers for some; writes nothing."""
    connection.flush()
    stored = {new.id: task for new in tasks for task in reading.get(connection, [new.id])}
    keyed = any(new.unique_key or new.idempotency_key for new in tasks)
    twins = Twins(connection, stored) if keyed else None
    return _make(connection, tasks, stored, twins, claim), stored, twins


def full_queue(connection: Connection, tasks: Sequence[NewTask]) -> QueueFull | None:
    """Return the refusal that storing these tasks would meet; writes nothing."""
    made, *_ = _make_by_rules(connection, tasks, None)
    return _full(connection, tasks, made)


def enqueue_or_raise(connection: Connection, tasks: Sequence[NewTask]) -> list[Task]:
    """What stands for the tasks, where a full queue ends the whole transaction. Raises QueueFull."""
    stored, _ = enqueue(connection, tasks)
    if isinstance(stored, QueueFull):
        raise stored
    return stored


def publish(connection: Connection, leases: Sequence[Lease], held: bool, run_at: Mapping[Lease, datetime]) -> None:
    later, at_once = [], []
    for lease in leases:
        asked = run_at.get(lease)
        until = connection.after(lifecycle.HOLD) if held else rows.from_instant(asked) if asked else 0
        key = rows.key(lease.task_id), lease.attempt
        if until > connection.instant:
            later.append((until, *key))
        else:
            at_once.append((connection.instant, *key))
    if later:
        connection.executemany(HOLD, later)
    if at_once:
        connection.queued |= connection.executemany(PUBLISH, at_once).rowcount > 0


def _make(
    connection: Connection, tasks: Sequence[NewTask], stored: dict[str, Task], twins: Twins | None, claim: Claim | None
) -> list[Task]:
    """The records of those that are not stored yet; they are among the stored, afterwards."""
    made: list[Task] = []
    slots = claim.limit if claim else 0
    for asked in tasks:
        if asked.id in stored:
            continue
        new = twins.in_line(asked) if twins else asked
        if twins and twins.answers(new):
            continue
        offer = claim if claim and slots and _could_lease(connection, claim, new) else None
        if new.after is None and new.failure is None:
            task = at_once(connection, new, offer)
        else:
            task = _behind_another(connection, new, stored, offer)
        slots -= task.state is State.RUNNING
        stored[new.id] = task
        made.append(task)
    return made


def _full(connection: Connection, tasks: Sequence[NewTask], made: Sequence[Task]) -> QueueFull | None:
    """The queue that would have more that waits than one of the tasks allows."""
    allowed = {new.id: new.max_queued for new in tasks if new.max_queued is not None}
    if not allowed:
        return None
    connection.flush()
    added = Counter(task.queue for task in made)
    for queue, most in {task.queue: allowed[task.id] for task in made if task.id in allowed}.items():
        [waiting] = connection.execute(COUNT_PENDING, (queue,) * 4).fetchone()
        if waiting + added[queue] > most:
            return QueueFull(queue, most)
    return None


def _could_lease(connection: Connection, claim: Claim, new: NewTask) -> bool:
    return claim.could_lease(new) and not connection.paused.stops(new)


def at_once(connection: Connection, new: NewTask, claim: Claim | None) -> Task:
    """What ``lifecycle`` says of a task behind none, in one step: most of what a request costs here is this."""
    now = connection.now
    asked = new.run_at or (now + new.wait if new.wait else now)
    if claim and asked > now:
        claim = None
    due = max(asked, now + lifecycle.HOLD) if new.held and not claim else asked if asked > now else None
    draft = rows.Draft(
        id=new.id,
        name=new.name,
        arguments=new.arguments,
        created_at=now,
        state=State.RUNNING if claim else State.SCHEDULED if due else State.QUEUED,
        queue=new.queue,
        priority=new.priority,
        retention=new.retention,
        origin=new.origin,
        attempt=1 if claim else 0,
        run_at=due,
        worker=claim.worker if claim else None,
        lease_until=connection.ahead(claim.lease) if claim else None,
        started_at=now if claim else None,
    )
    if rows.has_more(new):
        rows.take_over(draft, new, now)
    return frozen(draft, Task)


def _behind_another(connection: Connection, new: NewTask, stored: dict[str, Task], claim: Claim | None) -> Task:
    before = (stored.get(new.after) or _one(connection, new.after)) if new.after else None
    if before and before.id != new.after:  # that was the id of a call for which another task stands
        new = replace(new, after=before.id)
    task = lifecycle.store(new, before, connection.now)
    if claim and lifecycle.could_start(new, task):
        task = lifecycle.claim(task, claim.worker, claim.lease, connection.now)
    return task


def _insert(connection: Connection, asked: Sequence[NewTask], made: Sequence[Task]) -> None:
    at_an_instant = {new.id for new in asked if new.run_at is not None}
    for task in made:
        connection.unwritten.append(rows.from_new(task, at_an_instant=task.id in at_an_instant))
        if task.failures:
            changing.insert_failures(connection, task)
        if task.state is State.QUEUED:
            connection.queued = True


def _one(connection: Connection, id: str) -> Task | None:
    connection.flush()
    return next(iter(reading.get(connection, [id])), None)
