"""The engine's methods: each hands an operation to the thread that talks to the server."""

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from afterwards.core.errors import EngineError, QueueFull
from afterwards.core.lifecycle import Start
from afterwards.core.routing import LiveWorker, Unroutable
from afterwards.core.schedule import StoredSchedule
from afterwards.core.settling import Settled
from afterwards.core.task import Lease, NewTask, Task
from afterwards.core.urls import parse
from afterwards.engine import (
    Arrived,
    Batch,
    Chunk,
    Claim,
    CommitMode,
    Dispatched,
    Fire,
    Heartbeat,
    Held,
    PutBack,
    Transaction,
)
from afterwards.engines.postgres import joined, parsing, rows
from afterwards.engines.postgres.controls import Controls
from afterwards.engines.postgres.io.address import Address
from afterwards.engines.postgres.io.notifying import POLL
from afterwards.engines.postgres.io.schema import Identity
from afterwards.engines.postgres.joined import Joined
from afterwards.engines.postgres.opened import Opened
from afterwards.engines.postgres.operations import (
    clock_correction,
    files,
    handing_over,
    reading,
    registration,
    renewing,
    scheduling,
    set_aside,
    storing,
    taking_over,
)
from afterwards.engines.postgres.operations.storing import Call, Stored
from afterwards.engines.postgres.work import Operation, fetch

R = TypeVar("R")

LEAST = timedelta(milliseconds=20)
"""The shortest wait for a task that is due: another transaction may have locked it."""

NEXT_DUE = "SELECT {now}, min(run_at) FROM afterwards_tasks WHERE state = 'scheduled'"

_gate = threading.RLock()
"""Held while an engine is opened or closed, and during a fork, so that a child does not inherit it locked."""

_forgotten: list[Opened] = []
"""The parts that a process has inherited from its parent. They are kept, because their connections are the parent's."""


class PostgresEngine(Controls):
    """Tasks in a PostgreSQL database, for any number of processes on any number of hosts.

    The engine may be opened several times at once, from any event loop; the last exit closes it.
    """

    def __init__(self, url: str, *, clock: Callable[[], datetime] | None = None) -> None:
        self._address = Address.of(parse(url), clock)
        super().__init__(self._address.shown, _gate)
        self._looked_up: tuple[Identity, str] | None = None  # the database and the schema, found without opening

    def _start(self) -> Opened:
        opened = Opened(self._address)
        opened.start()
        return opened

    async def _prove(self, opened: Opened) -> None:
        """Connect, and make or migrate the tables if necessary."""
        await opened.prepare()

    def _ending(self, opened: Opened, *, refused: bool) -> Callable[[], None]:
        return opened.stop

    def _inherit(self, opened: Opened) -> None:
        _forgotten.append(opened)

    # The methods of ``Sender``.

    async def enqueue(self, tasks: Sequence[NewTask], *, claim: Claim | None = None) -> list[Task]:
        if not tasks:
            return []
        opened, call = self._here(), Call(tasks, claim)

        def take_back(stored: Stored) -> None:
            # Only new tasks are taken back: a repeated call must not release running tasks.
            leased = [task for task in stored.made if task.lease_until is not None]
            opened.unclaimed.release(leased, {new.id for new in tasks if new.held})

        lane = opened.enqueue_by_rules if call.has_rules else opened.enqueue
        stored = await lane.call(call, take_back if claim else None)
        if isinstance(stored.answer, QueueFull):
            raise stored.answer
        return opened.unclaimed.without_released(stored.answer)

    async def refuse_full(self, tasks: Sequence[NewTask]) -> None:
        if storing.is_limited(tasks) and (full := await self._transact(partial(storing.full_queue, tasks=tasks))):
            raise full

    async def publish(self, starts: Sequence[tuple[Lease, Start]]) -> None:
        if starts:
            await self._here().publish.call(starts)

    # The methods of ``Leasing``.

    async def claim(self, claim: Claim) -> list[Task]:
        opened = self._here()
        opened.wakeup.clear()
        return await opened.claim(claim)

    async def heartbeat(self, beats: Sequence[Heartbeat], *, lease: timedelta) -> list[Held]:
        return await self._transact(partial(renewing.heartbeat, beats=beats, lease=lease)) if beats else []

    async def finish(self, settled: Sequence[Settled]) -> list[Lease]:
        return await self._here().finish.call(settled) if settled else []

    async def expired(self, limit: int) -> list[Task]:
        await self._go_on_behind()  # the work that a dead process has left
        found = [(row, parsing.to_task(row)) for row in await self._read(partial(reading.expired, limit=limit))]
        if unreadable := [row for row, task in found if task.unreadable]:
            await self._transact(partial(set_aside.put_expired, seqs=[row[rows.SEQ] for row in unreadable]))
        return [task for _, task in found if not task.unreadable]

    async def put_right(self, lease: timedelta) -> bool:
        if not await self._read(partial(clock_correction.is_any_wrong, lease=lease)):
            return False
        beyond: int | None = clock_correction.BEFORE_ALL
        while beyond is not None:
            beyond = await self._transact(partial(clock_correction.put_finished_right, beyond=beyond))
        while await self._transact(partial(clock_correction.put_right, lease=lease)):
            pass
        return True

    async def wait(self, timeout: timedelta) -> None:
        """Wait for a hint. If hints cannot be received, it waits only for a short time."""
        opened = self._here()
        most = timeout if opened.notifier.is_listening else min(timeout, POLL)
        try:
            now, due = await opened.ask(_next_due)
        except EngineError:
            await opened.wakeup.wait(most)  # the claim that follows tells
            return
        coming = [max(LEAST, at - now) for at in (due, opened.room_at) if at is not None]
        if opened.room_at is not None and opened.room_at <= now:
            opened.room_at = None  # once: the next claim sets it again if a rate is used up
        await opened.wakeup.wait(max(timedelta(), min([most, *coming])))

    # The method of ``Dispatching``.

    async def dispatch(self, ahead: Claim, *, again: timedelta) -> Dispatched:
        opened = self._here()
        opened.wakeup.clear()
        return await opened.dispatch(ahead, again)

    # The methods of ``Schedules``.

    async def register_schedules(self, expressions: Mapping[str, str]) -> list[StoredSchedule]:
        known = await self._read(scheduling.schedules)
        if {one.name: one.expression for one in known}.items() >= expressions.items():
            return known
        await self._transact(partial(scheduling.register, expressions=expressions))
        return await self._read(scheduling.schedules)

    async def fire(self, fires: Sequence[Fire]) -> list[Task]:
        if not fires or not scheduling.may_any_fire(await self._read(scheduling.schedules), fires):
            return []
        return await self._transact(partial(scheduling.fire, fires=fires))

    # The methods of ``Files``.

    async def write_chunks(self, chunks: Sequence[Chunk]) -> None:
        if chunks:
            await self._transact(partial(files.write, chunks=chunks))

    async def read_chunks(self, file: str, *, start: int, limit: int) -> list[bytes]:
        return await self._ask(partial(files.read, file=file, start=start, limit=limit))

    async def delete_files(self, tasks: Sequence[str]) -> None:
        if tasks:
            await self._transact(partial(files.release, tasks=tasks))
            await self._delete_files_over()

    # The methods of ``Workers``.

    async def announce(self, workers: Sequence[LiveWorker]) -> None:
        if workers:
            await self._transact(partial(registration.announce, workers=workers))

    async def workers(self, since: timedelta) -> list[LiveWorker]:
        return await self._read(partial(registration.workers, since=since))

    async def unroutable(self, waited: timedelta) -> list[Unroutable]:
        return await self._read(partial(registration.unroutable, waited=waited))

    # The methods of ``Moving``.

    async def hand_over(self, to: str, *, limit: int, done: Batch | None = None) -> Batch | None:
        await self._finish_behind()  # tasks that wait for a decision stay where their predecessor is
        return await self._here().move(partial(handing_over.hand_over, to=to, limit=limit, done=done))

    async def take_over(self, batch: Batch) -> Arrived:
        return await self._here().move(partial(taking_over.take_over, batch=batch))

    async def put_back(self) -> PutBack | None:
        return await self._here().move(handing_over.put_back)

    def join(self, transaction: Transaction) -> Joined | None:
        """Join a transaction. If the engine is not open here, the first one connects for a moment to identify it."""
        if transaction.dialect != "postgresql" or joined.commit_mode(transaction) is CommitMode.ONE_BY_ONE:
            return None
        opened = self._opened
        if opened is not None and opened.pid == os.getpid() and opened.server.schema is not None:
            identity, schema = opened.server.identity, opened.server.schema
        else:
            opened = None
            identity, schema = self._looked_up = self._looked_up or joined.look_up(self._address)
        if joined.identity_of(transaction) != identity:
            return None
        joining = Joined(transaction, schema, self._address, self._announce)
        if opened is None:  # otherwise our tables exist
            joining.prepare()
        return joining

    def _announce(self) -> None:
        """Wake the waiting workers of all processes after a transaction has queued something."""
        opened = self._opened
        if opened is not None and opened.pid == os.getpid():
            opened.thread.post(opened.notifier.hint)


if sys.platform != "win32":
    os.register_at_fork(before=_gate.acquire, after_in_parent=_gate.release, after_in_child=_gate.release)


def _next_due() -> Operation[tuple[datetime, datetime | None]]:
    [(now, due)] = yield from fetch(NEXT_DUE)
    return rows.to_instant(now), None if due is None else rows.to_instant(min(due, rows.LATEST))
