"""Store and publish tasks. Every function runs in a transaction that others share."""

from collections.abc import Sequence
from datetime import datetime

from afterwards.core import lifecycle
from afterwards.core.task import Lease, NewTask, State, Task
from afterwards.engine import Claim
from afterwards.engines.sqlite import claiming, reading, rows, statements
from afterwards.engines.sqlite.connection import Connection


def enqueue(
    connection: Connection, tasks: Sequence[NewTask], claim: Claim | None = None, leased: list[Task] | None = None
) -> list[Task]:
    """Inserts no row before the connection is flushed. ``leased`` receives what is leased to the claim here."""
    if claim and claiming.anything_for(connection, claim):
        claim = None  # what is stored already comes first
    known: dict[str, Task] = {}
    if connection.careful:  # the call may be a repeated one
        connection.flush()
        known = {task.id: task for task in reading.get(connection, [new.id for new in tasks])}
    taken = _store(connection, tasks, known, claim)
    if leased is not None:
        leased[:] = taken
    return [known[new.id] for new in tasks]


def publish(connection: Connection, leases: Sequence[Lease], held: bool, run_at: datetime | None) -> None:
    keys = [(rows.key(lease.task_id), lease.attempt) for lease in leases]
    until = connection.after(lifecycle.HOLD) if held else run_at and rows.from_instant(run_at)
    if until and until > connection.instant:
        connection.executemany(statements.HOLD, [(until, *key) for key in keys])
    else:
        published = connection.executemany(statements.PUBLISH, keys).rowcount
        connection.queued |= published > 0


def _store(connection: Connection, tasks: Sequence[NewTask], known: dict[str, Task], claim: Claim | None) -> list[Task]:
    """Store those that are not known yet; they are, afterwards. Returns what was leased to the claim."""
    leased: list[Task] = []
    for new in tasks:
        if new.id in known:
            continue
        offer = claim if claim and len(leased) < claim.limit else None
        if new.after is None and new.failure is None:
            task = _at_once(new, offer, connection.now)
        else:
            task = _behind_another(connection, new, known, offer)
        _insert(connection, task)
        known[new.id] = task
        if task.state is State.RUNNING:
            leased.append(task)
    return leased


def _at_once(new: NewTask, claim: Claim | None, now: datetime) -> Task:
    """What ``lifecycle`` says of a task behind none, in one step: most of what a request costs here is this."""
    asked = new.run_at or (now + new.wait if new.wait else now)
    if claim and (asked > now or not claim.serves(new)):
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
        overrides=new.overrides,
        retention=new.retention,
        origin=new.origin,
        attempt=1 if claim else 0,
        run_at=due,
        worker=claim.worker if claim else None,
        lease_until=now + claim.lease if claim else None,
        started_at=now if claim else None,
    )
    return rows.frozen(draft)


def _behind_another(connection: Connection, new: NewTask, known: dict[str, Task], claim: Claim | None) -> Task:
    before = (known.get(new.after) or _one(connection, new.after)) if new.after else None
    task = lifecycle.store(new, before, connection.now)
    if claim and lifecycle.could_start(new, task) and claim.serves(task):
        task = lifecycle.claim(task, claim.worker, claim.lease, connection.now)
    return task


def _insert(connection: Connection, task: Task) -> None:
    connection.unwritten.append(rows.from_new(task))
    if task.failures:
        failures = [rows.from_failure(task.id, failure) for failure in task.failures]
        connection.executemany(statements.INSERT_FAILURE, failures)
    if task.state is State.QUEUED:
        connection.queued = True


def _one(connection: Connection, id: str) -> Task | None:
    connection.flush()
    return next(iter(reading.get(connection, [id])), None)
