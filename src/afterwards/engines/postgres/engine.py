"""The engine's methods: each hands an operation to the thread that talks to the server."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from afterwards.core.errors import EngineError, EngineUnavailable, QueueFull
from afterwards.core.lifecycle import Start
from afterwards.core.routing import LiveWorker, Unroutable
from afterwards.core.schedule import StoredSchedule
from afterwards.core.settling import Settled
from afterwards.core.tallies import Tally
from afterwards.core.task import Lease, NewTask, Task
from afterwards.core.urls import parse
from afterwards.engine import Arrived, Batch, Chunk, Claim, Fire, Heartbeat, Held, Paused, Query, Stats, Transaction
from afterwards.engines.postgres import joined, parsing, rows
from afterwards.engines.postgres.io.address import Address
from afterwards.engines.postgres.io.notifying import POLL
from afterwards.engines.postgres.io.schema import Identity
from afterwards.engines.postgres.joined import Joined
from afterwards.engines.postgres.opened import Opened
from afterwards.engines.postgres.operations import (
    claiming,
    clock_correction,
    files,
    finishing,
    moving,
    pausing,
    pruning,
    reading,
    registration,
    scheduling,
    set_aside,
    storing,
    successors,
    tallying,
)
from afterwards.engines.postgres.operations.finishing import Piece
from afterwards.engines.postgres.operations.storing import Call, Stored
from afterwards.engines.postgres.work import Operation, Work, fetch

R = TypeVar("R")

MOST_CHANGED = 100
"""Tasks that one transaction cancels or requeues, so that none takes long."""

MOST_PRUNED = 500
"""Rows that one transaction deletes, so that none takes long."""

LEAST = timedelta(milliseconds=20)
"""The shortest wait for a task that is due: another transaction may have locked it."""

BETWEEN_PIECES = 0.005
"""Seconds between two transactions that decide on tasks behind others."""

NEXT_DUE = "SELECT {now}, min(run_at) FROM afterwards_tasks WHERE state = 'scheduled'"

_gate = threading.RLock()
"""Held while an engine is opened or closed, and during a fork, so that a child does not inherit it locked."""

_forgotten: list[Opened] = []
"""The parts that a process has inherited from its parent. They are kept, because their connections are the parent's."""


class PostgresEngine:
    """Tasks in a PostgreSQL database, for any number of processes on any number of hosts.

    The engine may be opened several times at once, from any event loop; the last exit closes it.
    """

    def __init__(self, url: str, *, clock: Callable[[], datetime] | None = None) -> None:
        self._address = Address.of(parse(url), clock)
        self._opened: Opened | None = None
        self._users = 0
        self._looked_up: tuple[Identity, str] | None = None  # the database and the schema, found without opening

    async def __aenter__(self) -> Self:
        """Connect, and make or migrate the tables if necessary. Raises EngineError, EngineUnavailable."""
        with _gate:
            self._users += 1
        try:
            await self._here().prepare()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish the calls made so far, then leave."""
        await self._leave()

    async def _leave(self) -> None:
        with _gate:
            self._users -= 1
            if self._users > 0:
                return
            opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            await asyncio.to_thread(opened.stop)

    def _here(self) -> Opened:
        """Return the opened parts in this process. A fork opens its own."""
        opened = self._opened
        if opened is None or opened.pid != os.getpid():
            with _gate:
                opened = self._open()
        return opened

    def _open(self) -> Opened:
        if self._users == 0:
            raise EngineUnavailable(f"{self._address.shown} is not open: enter the engine with `async with` first")
        if self._opened is not None and self._opened.pid != os.getpid():
            _forgotten.append(self._opened)
            self._opened = None
        if self._opened is None:
            self._opened = Opened(self._address)
            self._opened.start()
        return self._opened

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

    async def get(self, ids: Sequence[str]) -> list[Task]:
        return await self._ask(partial(reading.get, ids=ids)) if ids else []

    async def cancel(self, ids: Sequence[str], reason: str) -> list[Task]:
        await self._in_pieces(ids, lambda some: partial(finishing.cancel, ids=some, reason=reason))
        return await self.get(ids)

    # The methods of ``Leasing``.

    async def claim(self, claim: Claim) -> list[Task]:
        opened = self._here()
        opened.wakeup.clear()
        return await opened.claim(claim)

    async def heartbeat(self, beats: Sequence[Heartbeat], *, lease: timedelta) -> list[Held]:
        return await self._transact(partial(claiming.heartbeat, beats=beats, lease=lease)) if beats else []

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

    # The methods of ``Controls``.

    async def find(self, query: Query) -> list[Task]:
        return await self._ask(partial(reading.find, query=query))

    async def stats(self) -> Stats:
        return await self._read(reading.stats)

    async def count(self, query: Query) -> int:
        return await self._ask(partial(reading.count, query=query))

    async def tallies(self, since: timedelta, step: timedelta) -> list[Tally]:
        return await self._read(partial(tallying.tallies, since=since, step=step))

    async def requeue(self, ids: Sequence[str]) -> list[Task]:
        ordered = await self._in_the_order_stored(ids)
        return await self._in_pieces(ordered, lambda some: partial(finishing.requeue, ids=some))

    async def start_now(self, ids: Sequence[str]) -> list[Task]:
        ordered = await self._in_the_order_stored(ids)
        return await self._in_pieces(ordered, lambda some: partial(finishing.start_now, ids=some))

    async def delete(self, ids: Sequence[str]) -> list[str]:
        ordered = await self._in_the_order_stored(ids)
        if ordered:
            await self._finish_behind()  # a task is not deleted before all those behind it are decided on
        deleted: list[str] = []
        for start in range(0, len(ordered), MOST_PRUNED):
            some = ordered[start : start + MOST_PRUNED]
            deleted += await self._transact(partial(pruning.delete, ids=some))
        if deleted:
            await self._delete_files_over()
        return deleted

    async def prune(self, limit: int) -> int:
        """Run several transactions if there are many, so that other calls get their turn."""
        pruned = 0
        while pruned < limit and await self._read(pruning.is_any_over):
            count = await self._transact(partial(pruning.prune, limit=min(limit - pruned, MOST_PRUNED)))
            pruned += count
            if not count:  # others delete the same ones
                break
        await self._delete_files_over()
        for tidy in (pruning.forget_starts, tallying.prune, set_aside.put_odd, registration.forget):
            await self._transact(tidy)
        return pruned

    async def pause(self, paused: Paused) -> None:
        await self._transact(partial(pausing.pause, paused=paused))

    async def resume(self, paused: Paused) -> None:
        await self._transact(partial(pausing.resume, paused=paused))

    async def paused(self) -> Paused:
        return await self._read(pausing.paused)

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
        return await self._transact(partial(moving.hand_over, to=to, limit=limit, done=done))

    async def take_over(self, batch: Batch) -> Arrived:
        return await self._transact(partial(moving.take_over, batch=batch))

    def join(self, transaction: Transaction) -> Joined | None:
        """Join a transaction. If the engine is not open here, the first one connects for a moment to identify it."""
        if transaction.dialect != "postgresql":
            return None
        opened = self._opened
        if opened is not None and opened.pid == os.getpid() and opened.server.schema is not None:
            identity, schema = opened.server.identity, opened.server.schema
        else:
            opened = None
            identity, schema = self._looked_up = self._looked_up or joined.look_up(self._address)
        if joined.identity_of(transaction) != identity:
            return None
        joining = Joined(transaction, schema, self._address.clock, self._announce)
        if opened is None:  # otherwise our tables exist
            joining.prepare(self._address)
        return joining

    def _announce(self) -> None:
        """Wake the waiting workers of all processes after a transaction has queued something."""
        opened = self._opened
        if opened is not None and opened.pid == os.getpid():
            opened.thread.post(opened.notifier.hint)

    async def _transact(self, make: Callable[[Work], Operation[R]]) -> R:
        return await self._here().transact(make)

    async def _read(self, make: Callable[[Work], Operation[R]]) -> R:
        return await self._here().read(make)

    async def _ask(self, question: Callable[[], Operation[R]]) -> R:
        return await self._here().ask(question)

    async def _in_the_order_stored(self, ids: Sequence[str]) -> list[str]:
        return await self._ask(partial(reading.in_the_order_stored, ids=ids)) if ids else []

    async def _in_pieces(
        self, ids: Sequence[str], change: Callable[[Sequence[str]], Callable[[Work], Operation[Piece]]]
    ) -> list[Task]:
        """Run several transactions if there are many, so that other calls get their turn. Returns the changed tasks."""
        changed: list[Task] = []
        left = ids
        while left:
            piece = await self._transact(change(left[:MOST_CHANGED]))
            changed += piece.changed
            left = left[piece.done :]
            if piece.left_behind:
                await self._finish_behind()
        return changed

    async def _finish_behind(self) -> None:
        """Decide on all remaining tasks behind others. Another transaction may be at work on some of them."""
        while await self._go_on_behind():  # noqa: ASYNC110 (other processes do it)
            await asyncio.sleep(BETWEEN_PIECES)

    async def _go_on_behind(self) -> bool:
        """Decide on remaining tasks behind others. Returns True if more are left."""
        return await self._ask(successors.is_any_left) and await self._transact(successors.go_on)

    async def _delete_files_over(self) -> None:
        """Run several transactions if there are many, so that other calls get their turn."""
        while await self._transact(files.delete_some):
            pass


if sys.platform != "win32":
    os.register_at_fork(before=_gate.acquire, after_in_parent=_gate.release, after_in_child=_gate.release)


def _next_due() -> Operation[tuple[datetime, datetime | None]]:
    [(now, due)] = yield from fetch(NEXT_DUE)
    return rows.to_instant(now), None if due is None else rows.to_instant(min(due, rows.LATEST))
