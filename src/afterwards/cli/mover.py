"""Move everything from one engine to another, in batches, so that it can be interrupted and continued at any point."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from afterwards.cli.errors import CommandError, UsageError
from afterwards.core.routing import FORGOTTEN_AFTER, LiveWorker
from afterwards.core.task import State
from afterwards.engine import Arrived, Batch, Engine, Query

BATCH = 500
"""Tasks that are moved together, in one transaction of each engine."""

SEEN_LATELY = timedelta(minutes=1)
"""How long ago a worker of the source must have been seen last. Live workers announce themselves every ten seconds."""

MOST_RUNNING = 1000
"""Running tasks that are looked at for a worker that has left and still holds some."""


@dataclass(slots=True, kw_only=True)
class Moved:
    """The result of a move so far."""

    tasks: int = 0
    schedules: int = 0
    bytes: int = 0  # of files
    known: list[str] = field(default_factory=list)  # ids that were in the destination already
    without_keys: list[str] = field(default_factory=list)
    finished: bool = False  # nothing is left, except for records that cannot be read

    def add(self, batch: Batch, arrived: Arrived) -> None:
        self.tasks += len(batch.tasks)
        self.schedules += len(batch.schedules)
        self.bytes += sum(len(chunk.content) for chunk in batch.chunks)
        self.known += arrived.known
        self.without_keys += arrived.without_keys


async def move(
    source: Engine, destination: Engine, to: str, *, report: Callable[[Moved], None], stopped: Callable[[], bool]
) -> Moved:
    """Move all records. ``to`` names the destination; it must be the same when a move is continued.

    Ends early once ``stopped`` returns True; ``finished`` says so. Raises CommandError if a worker of the source lives,
    UsageError if the source holds a batch for another destination, EngineError.
    """
    moved, done, any_found = Moved(), None, False
    while not stopped():
        await refuse_live_workers(source)
        batch = await source.hand_over(to, limit=BATCH, done=done)
        if batch is None and not any_found:
            moved.finished = True
            break
        any_found = batch is not None and (any_found or not batch.is_empty)
        if batch is not None:
            if batch.to != to:
                raise UsageError(
                    f"a move to {batch.to} was interrupted, and some tasks may be there already: finish it first, with "
                    f"`afterwards move SOURCE {batch.to}`. If that store is gone for good, `afterwards move --put-back "
                    "SOURCE` stores the tasks that were on their way in the source again"
                )
            moved.add(batch, await destination.take_over(batch))
            report(moved)
        done = batch  # after the last one, the next round finds what was stored meanwhile
    return moved


async def refuse_live_workers(source: Engine) -> None:
    """Raise CommandError if a worker of the source was seen lately: it may run tasks that are moved."""
    seen = await source.workers(SEEN_LATELY)
    leaving = {worker.id for worker in seen if worker.has_left}
    if leaving:
        running = await source.find(Query(states=frozenset({State.RUNNING}), limit=MOST_RUNNING))
        leaving &= {task.worker for task in running if task.worker}
    alive = [worker for worker in seen if not worker.has_left or worker.id in leaving]
    if alive:
        named = ", ".join(f"process {worker.pid} on {worker.host}" for worker in alive[:3])
        more = f" and {len(alive) - 3} more" if len(alive) > 3 else ""
        raise CommandError(
            f"workers of the source were seen within the last minute ({named}{more}): they would run tasks that are "
            "moved. Stop every process that uses the source; if one was killed, wait a minute. Then run the same "
            "command again"
        )


async def refuse_same_store(source: Engine, destination: Engine) -> None:
    """Raise UsageError if two URLs name the same server and database: nothing would ever end."""
    probe = LiveWorker(
        id=f"move-{uuid4()}",
        host=socket.gethostname(),
        pid=str(os.getpid()),
        started_at=datetime.now(UTC),
        names=frozenset(),
        has_left=True,
    )
    await destination.announce([probe])
    if any(worker.id == probe.id for worker in await source.workers(FORGOTTEN_AFTER)):
        raise UsageError("both URLs name the same store: give another destination")
