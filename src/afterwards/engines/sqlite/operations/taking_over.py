"""Take over records that another engine has handed over, in a transaction that others share."""

from collections.abc import Sequence

from afterwards.core import moving, schedule
from afterwards.core.claim import NOTHING_PAUSED
from afterwards.core.moving import Arrived, Batch, MovedChunk, MovedTask
from afterwards.core.schedule import StoredSchedule
from afterwards.core.storing import keys_of
from afterwards.engines.sqlite import many, rows
from afterwards.engines.sqlite.io.connection import ADD_TALLY, Connection
from afterwards.engines.sqlite.operations import changing, files, limiting, pausing, storing
from afterwards.engines.sqlite.operations.scheduling import schedules
from afterwards.engines.sqlite.operations.successors import follow

TAKE_OVER = "INSERT OR IGNORE INTO afterwards_taken_over (batch) VALUES (?)"

PUT_SCHEDULES = """
    INSERT OR REPLACE INTO afterwards_schedules (name, expression, after, last_fire, paused) VALUES {rows}
"""

PUT_TALLIES = f"INSERT INTO afterwards_tallies (at, succeeded, failed, retried) VALUES {{rows}} {ADD_TALLY}"

INSERT_FILES = "INSERT OR IGNORE INTO afterwards_files (id, task, until) VALUES {rows}"

LOWEST = "SELECT coalesce(min(seq), 0) FROM afterwards_tasks"

HIGHEST = "SELECT coalesce(max(seq), 0) FROM afterwards_tasks"

INSERT_MOVED = f"INSERT INTO afterwards_tasks ({', '.join(rows.MOVED)}) VALUES {{rows}}"

INSERT_ALIASES = "INSERT OR IGNORE INTO afterwards_aliases (id, task) VALUES {rows}"


def take_over(connection: Connection, batch: Batch) -> Arrived:
    """Store the records of a batch, unless it was taken over before."""
    if connection.execute(TAKE_OVER, (rows.key_to_store(batch.id),)).rowcount == 0:
        return Arrived()
    [lowest] = connection.execute(LOWEST).fetchone()
    return _put(connection, batch, lowest - 1)


def put_back(connection: Connection, batch: Batch) -> Arrived:
    """Store the records of a batch again that was taken out here. Its tasks come behind all others."""
    [highest] = connection.execute(HIGHEST).fetchone()
    return _put(connection, batch, highest + len(batch.tasks))


def _put(connection: Connection, batch: Batch, last: int) -> Arrived:
    """Store the records of a batch. The newest task gets the place ``last``, and all others those before it."""
    if batch.paused != NOTHING_PAUSED:
        pausing.pause(connection, batch.paused)
    _put_schedules(connection, batch.schedules)
    starts = [(*one.group, rows.from_instant(one.at), rows.from_instant(one.until)) for one in batch.starts]
    many.insert(connection, limiting.INSERT_STARTS, starts)
    many.insert(connection, PUT_TALLIES, [(rows.from_instant(one.at), *one.ends) for one in batch.tallies])
    _put_chunks(connection, batch.chunks)
    keys = {key for one in batch.tasks for key in keys_of(one.task)}
    loaded = storing.loaded(connection, moving.needed_ids(batch.tasks), keys)
    arrived = moving.arrive(batch.tasks, loaded, connection.now)
    _put_tasks(connection, batch.tasks, arrived.stored, last)
    ended = {one.task.id: one.task for one in arrived.stored if one.task.state.finished}
    if ended:
        follow(connection, ended)
    connection.queued = True
    return arrived


def _put_schedules(connection: Connection, moved: Sequence[StoredSchedule]) -> None:
    if not moved:
        return
    known = {one.name: one for one in schedules(connection)}
    after = [schedule.moved(known.get(one.name), one) for one in moved]
    many.insert(connection, PUT_SCHEDULES, [_from_schedule(one) for one in after])


def _from_schedule(one: StoredSchedule) -> rows.Row:
    last_fire = one.last_fire and rows.from_instant(one.last_fire)
    return one.name, one.expression, rows.from_instant(one.after), last_fire, int(one.paused)


def _put_chunks(connection: Connection, chunks: Sequence[MovedChunk]) -> None:
    owners = {chunk.file: (chunk.task, chunk.until) for chunk in chunks}
    stored = [
        (rows.key_to_store(file), rows.key_to_store(task), until and rows.from_instant(until))
        for file, (task, until) in owners.items()
    ]
    many.insert(connection, INSERT_FILES, stored)
    contents = [(rows.key(chunk.file), chunk.number, chunk.content) for chunk in chunks]
    many.insert(connection, files.INSERT_CHUNKS, contents)


def _put_tasks(connection: Connection, moved: Sequence[MovedTask], stored: Sequence[MovedTask], last: int) -> None:
    """Store tasks, newest first, with their failures, and the aliases of all that were moved."""
    tasks = [rows.from_moved(one.task, one.since, last - number) for number, one in enumerate(stored)]
    many.insert(connection, INSERT_MOVED, tasks)
    failures = [rows.from_failure(one.task.id, failure) for one in stored for failure in one.task.failures]
    many.insert(connection, changing.INSERT_FAILURES, failures)
    logs = [row for one in stored for row in rows.from_logs(one.task.id, one.task.logs)]
    many.insert(connection, changing.INSERT_LOGS, logs)
    aliases = [(rows.key_to_store(alias), rows.key(one.task.id)) for one in moved for alias in one.aliases]
    many.insert(connection, INSERT_ALIASES, aliases)
