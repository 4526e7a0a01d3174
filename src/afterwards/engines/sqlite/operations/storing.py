"""Store and publish tasks. Every function runs in a transaction that others share."""

from collections.abc import Collection, Sequence

from afterwards.core import lifecycle, storing
from afterwards.core.claim import NOTHING_PAUSED
from afterwards.core.errors import QueueFull
from afterwards.core.lifecycle import Start
from afterwards.core.storing import NOTHING_LOADED, Key, KeyKind, Loaded
from afterwards.core.task import Lease, NewTask, State, Task
from afterwards.engine import Claim
from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.columns import COLUMNS
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.operations import changing, claiming, reading

Stored = tuple[list[Task] | QueueFull, Sequence[Task]]
"""The tasks that answer a call, and those of them that are new."""

LIKE = {
    KeyKind.IDEMPOTENCY: f"""
        SELECT {COLUMNS}, idempotency_key FROM afterwards_tasks WHERE idempotency_key IN ({{places}})
    """,
    KeyKind.UNIQUE: f"""
        SELECT {COLUMNS}, unique_key FROM afterwards_tasks
        WHERE unique_key IN ({{places}}) AND finished_at IS NULL
    """,
}
"""The tasks that have one of some keys, and the key. A unique key finds only unfinished tasks."""

INSERT_ALIASES = "INSERT INTO afterwards_aliases (id, task) VALUES {rows}"

WAITING_IN = """
    WITH wanted (queue) AS (VALUES {rows})
    SELECT wanted.queue,
        (SELECT count(*) FROM afterwards_tasks WHERE state = 'waiting' AND queue = wanted.queue)
        + (SELECT count(*) FROM afterwards_tasks WHERE state = 'scheduled' AND queue = wanted.queue)
        + (
            SELECT count(*) FROM afterwards_tasks
            WHERE state = 'queued' AND limit_key = '' AND suspect IN (0, 1) AND queue = wanted.queue
        )
        + (
            SELECT count(*) FROM afterwards_tasks
            WHERE state = 'queued' AND limit_key != '' AND suspect IN (0, 1) AND queue = wanted.queue
        )
    FROM wanted
"""

PUBLISH_ALL = """
    UPDATE afterwards_tasks SET state = 'queued', run_at = NULL, queued_at = ?
    WHERE id IN ({places}) AND attempt = ? AND state = 'scheduled'
"""

SCHEDULE_ALL = """
    WITH new (id, attempt, run_at) AS (VALUES {rows})
    UPDATE afterwards_tasks SET run_at = (
        SELECT run_at FROM new WHERE new.id = afterwards_tasks.id AND new.attempt = afterwards_tasks.attempt
    )
    WHERE id IN (SELECT id FROM new) AND state = 'scheduled'
        AND attempt IN (SELECT attempt FROM new WHERE new.id = afterwards_tasks.id)
"""


def enqueue(connection: Connection, tasks: Sequence[NewTask], claim: Claim | None = None) -> Stored:
    """Store tasks. No row is inserted before the connection is flushed.

    A full queue is returned, not raised: nothing was written, and the other operations of the transaction go on.
    """
    if claim and claiming.anything_for(connection, claim):
        claim = None  # older tasks come first
    by_rules = connection.careful or any(map(storing.has_rules, tasks))  # careful: the call may be a repeated one
    loaded = _loaded(connection, tasks) if by_rules else _predecessors(connection, tasks)
    paused = connection.paused if claim else NOTHING_PAUSED
    stored = storing.store_all(tasks, loaded, connection.now, claim=claim, paused=paused)
    if by_rules and (full := _full(connection, tasks, stored.made)):
        return full, []
    _insert(connection, tasks, stored.made)
    if stored.aliases:
        aliases = [(rows.key_to_store(id), rows.key(task)) for id, task in stored.aliases.items()]
        many.insert(connection, INSERT_ALIASES, aliases)
    return stored.answers, stored.made


def full_queue(connection: Connection, tasks: Sequence[NewTask]) -> QueueFull | None:
    """Return the refusal that storing these tasks would meet. It writes nothing."""
    stored = storing.store_all(tasks, _loaded(connection, tasks), connection.now)
    return _full(connection, tasks, stored.made)


def enqueue_or_raise(connection: Connection, tasks: Sequence[NewTask]) -> list[Task]:
    """Return the tasks that answer the call. A full queue ends the whole transaction. Raises QueueFull."""
    stored, _ = enqueue(connection, tasks)
    if isinstance(stored, QueueFull):
        raise stored
    return stored


def publish(connection: Connection, starts: Sequence[tuple[Lease, Start]]) -> None:
    """Queue or schedule held tasks, as if one after the other."""
    later: dict[Lease, int] = {}
    at_once: dict[int, list[bytearray]] = {}  # by attempt: mostly the sender's
    for lease, start in starts:
        at = lifecycle.start_at(start, connection.now)
        until = rows.from_instant(at) if at else 0
        if until > connection.instant:
            later[lease] = until
        else:
            at_once.setdefault(lease.attempt, []).append(rows.key(lease.task_id))
    if later:
        scheduled = [(rows.key(lease.task_id), lease.attempt, until) for lease, until in later.items()]
        many.update(connection, SCHEDULE_ALL, scheduled)
    for attempt, keys in at_once.items():
        queued = many.change(connection, PUBLISH_ALL, keys, attempt, before=(connection.instant,))
        connection.queued |= queued > 0


def _predecessors(connection: Connection, tasks: Sequence[NewTask]) -> Loaded:
    """Return those predecessors of the tasks that are stored already."""
    after = {new.after for new in tasks if new.after is not None}
    after -= {new.id for new in tasks} if after else after
    if not after:
        return NOTHING_LOADED
    connection.flush()
    return Loaded(by_id=reading.standing(connection, after))


def _loaded(connection: Connection, tasks: Sequence[NewTask]) -> Loaded:
    connection.flush()  # tasks of other operations in this transaction
    return loaded(connection, storing.needed_ids(tasks), {key for new in tasks for key in storing.keys_of(new)})


def loaded(connection: Connection, ids: Sequence[str], keys: Collection[Key]) -> Loaded:
    """Return the stored tasks that have one of these ids or keys."""
    by_key: dict[Key, Task] = {}
    for kind, statement in LIKE.items():
        found = many.select(connection, statement, [key.text for key in keys if key.kind is kind])
        twins = reading.to_tasks(connection, [row[:-1] for row in found])
        by_key |= {Key(kind, row[-1]): twin for row, twin in zip(found, twins, strict=True)}
    return Loaded(by_id=reading.standing(connection, ids), by_key=by_key)


def _full(connection: Connection, tasks: Sequence[NewTask], made: Sequence[Task]) -> QueueFull | None:
    """Return the refusal of a queue that would hold more waiting tasks than one of the tasks allows."""
    queues = [(queue,) for queue in storing.limited_queues(tasks)]
    waiting: dict[str, int] = dict(many.select_by_rows(connection, WAITING_IN, queues))
    return storing.full_queue(tasks, made, waiting)


def _insert(connection: Connection, asked: Sequence[NewTask], made: Sequence[Task]) -> None:
    at_an_instant = {new.id for new in asked if new.run_at is not None}
    failed = []
    for task in made:
        connection.unwritten.append(rows.from_new(task, at_an_instant=task.id in at_an_instant))
        failed += [(task, failure) for failure in task.failures]
        connection.queued |= task.state is State.QUEUED
    if failed:
        changing.add_failures(connection, failed)
