"""The engine's methods: each hands a function to the thread that writes or the one that reads."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from afterwards.core.errors import InvalidOption, QueueFull
from afterwards.core.lifecycle import Start
from afterwards.core.routing import LiveWorker, Unroutable
from afterwards.core.schedule import StoredSchedule
from afterwards.core.settling import Settled
from afterwards.core.task import Lease, NewTask, Task
from afterwards.engine import Arrived, Batch, Chunk, Claim, Dispatched, Fire, Heartbeat, Held, PutBack, Transaction
from afterwards.engines.sqlite import rows
from afterwards.engines.sqlite.controls import Controls
from afterwards.engines.sqlite.io import backup
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.io.operation import ConditionalOperation, FunctionOperation
from afterwards.engines.sqlite.io.runtime import say_what_joining_risks
from afterwards.engines.sqlite.operations import (
    clock_correction,
    files,
    finishing,
    handing_over,
    reading,
    registration,
    renewing,
    scheduling,
    set_aside,
    storing,
    successors,
    taking_over,
)
from afterwards.engines.sqlite.operations.dispatching import DispatchTasks
from afterwards.engines.sqlite.operations.finishing import Finish
from afterwards.engines.sqlite.operations.joined import Joined, is_on
from afterwards.engines.sqlite.operations.unclaimed_leases import ClaimTasks, Enqueue, EnqueueAndLease, UnclaimedLeases


class SQLiteEngine(Controls):
    """Tasks in one file, for any number of processes of one machine. Stored tasks survive a power cut.

    The engine may be opened several times at once, from any event loop; the last exit closes it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        patience: timedelta = timedelta(seconds=5),
    ) -> None:
        if str(path) in ("", ":memory:") or str(path).startswith("file:"):
            raise InvalidOption(f"{str(path)!r} is not the path of a file: to keep tasks in memory, give memory://")
        super().__init__(Path(os.path.realpath(path)), clock=clock, patience=patience, go_on=successors.GoOn)
        self._unclaimed = UnclaimedLeases(clock)

    async def enqueue(self, tasks: Sequence[NewTask], *, claim: Claim | None = None) -> list[Task]:
        if not tasks:
            return []
        opened = self._here()
        if claim is None:
            stored = await opened.writer.ask(Enqueue(tasks))
        else:
            opened.presence.note(claim.worker)
            release = partial(self._unclaimed.release, opened)
            stored = await opened.writer.ask(EnqueueAndLease(tasks, claim, release))
        if isinstance(stored, QueueFull):
            raise stored
        return self._unclaimed.without_released(stored)

    async def refuse_full(self, tasks: Sequence[NewTask]) -> None:
        if full := await self._here().reader.call(partial(storing.full_queue, tasks=tasks)):
            raise full

    def join(self, transaction: Transaction) -> Joined | None:
        if not is_on(self._settings.path, transaction):
            return None
        say_what_joining_risks()
        joined = Joined(transaction, self._settings.clock, self._announce)
        if self._opened is None:  # otherwise our tables exist
            joined.prepare(self._settings.path)
        return joined

    async def publish(self, starts: Sequence[tuple[Lease, Start]]) -> None:
        if starts:
            await self._here().writer.call(partial(storing.publish, starts=starts))

    async def claim(self, claim: Claim) -> list[Task]:
        opened = self._here()
        opened.wakeup.clear()
        opened.presence.note(claim.worker)
        return await opened.writer.ask(ClaimTasks(claim, partial(self._unclaimed.release, opened)))

    async def dispatch(self, ahead: Claim, *, again: timedelta) -> Dispatched:
        opened = self._here()
        opened.wakeup.clear()
        return await opened.writer.ask(DispatchTasks(ahead, again, opened.writer.submit))

    async def heartbeat(self, beats: Sequence[Heartbeat], *, lease: timedelta) -> list[Held]:
        if not beats:
            return []
        return await self._here().writer.call(partial(renewing.heartbeat, beats=beats, lease=lease))

    async def finish(self, settled: Sequence[Settled]) -> list[Lease]:
        if not settled:
            return []
        return await self._here().writer.ask(Finish(partial(finishing.finish, settled=settled)))

    async def expired(self, limit: int) -> list[Task]:
        """End the leases of workers that are known to be dead, so that their tasks are found at once."""
        opened = self._here()
        with opened.presence.dead() as workers:
            if workers:
                await opened.writer.call(partial(renewing.expire, workers=workers))
        await self._go_on_behind()  # the work that a dead process has left
        tasks, unreadable = await opened.reader.call(partial(reading.expired, limit=limit))
        if unreadable:
            await opened.writer.call(partial(set_aside.put_lost, seqs=unreadable))
        return tasks

    async def put_right(self, lease: timedelta) -> bool:
        if not await self._here().reader.call(partial(clock_correction.is_any_wrong, lease=lease)):
            return False
        beyond: int | None = clock_correction.BEFORE_ALL
        while beyond is not None:
            beyond = await self._here().writer.call(partial(clock_correction.put_finished_right, beyond=beyond))
        while await self._here().writer.call(partial(clock_correction.put_right, lease=lease)):
            pass
        return True

    async def delete_files(self, tasks: Sequence[str]) -> None:
        if tasks:
            await self._here().writer.call(partial(files.release, tasks=[rows.key(task) for task in tasks]))
            await self._delete_files_over()

    async def write_chunks(self, chunks: Sequence[Chunk]) -> None:
        if chunks:
            await self._here().writer.call(partial(files.write, chunks=chunks))

    async def read_chunks(self, file: str, *, start: int, limit: int) -> list[bytes]:
        return await self._here().reader.call(partial(files.read, file=file, start=start, limit=limit))

    async def backup(self, path: Path) -> None:
        """Use a connection and a thread of its own, so that no other call waits."""
        self._here()
        await asyncio.to_thread(backup.write, self._settings.path, path, patience=self._settings.patience)

    async def wait(self, timeout: timedelta) -> None:
        opened = self._here()
        due = opened.writer.next_due
        if due is not None:
            timeout = min(timeout, timedelta(microseconds=due - rows.from_instant(self._settings.clock())))
        if room_at := opened.writer.room_at:
            timeout = min(timeout, room_at - self._settings.clock())
            if timeout <= timedelta():
                opened.writer.room_at = None  # once: the next claim sets it again if a rate is used up
        await opened.wakeup.wait(max(timedelta(), timeout))

    async def register_schedules(self, expressions: Mapping[str, str]) -> list[StoredSchedule]:
        if expressions:
            await self._here().writer.ask(
                ConditionalOperation(
                    partial(scheduling.register, expressions=expressions),
                    needed=partial(scheduling.is_any_new, expressions=expressions),
                    otherwise=None,
                )
            )
        return await self._here().reader.call(scheduling.schedules)

    async def fire(self, fires: Sequence[Fire]) -> list[Task]:
        if not fires:
            return []
        return await self._here().writer.ask(
            ConditionalOperation(
                partial(scheduling.fire, fires=fires),
                needed=partial(scheduling.may_any_fire, fires=fires),
                otherwise=[],
            )
        )

    async def announce(self, workers: Sequence[LiveWorker]) -> None:
        if workers:
            await self._here().writer.call(partial(registration.announce, workers=workers))

    async def workers(self, since: timedelta) -> list[LiveWorker]:
        return await self._here().reader.call(partial(registration.workers, since=since))

    async def unroutable(self, waited: timedelta) -> list[Unroutable]:
        return await self._here().reader.call(partial(registration.unroutable, waited=waited))

    async def hand_over(self, to: str, *, limit: int, done: Batch | None = None) -> Batch | None:
        while await self._go_on_behind():  # tasks that wait for a decision stay where their predecessor is
            pass
        return await self._here().writer.call(partial(handing_over.hand_over, to=to, limit=limit, done=done))

    async def take_over(self, batch: Batch) -> Arrived:
        return await self._here().writer.call(partial(taking_over.take_over, batch=batch))

    async def put_back(self) -> PutBack | None:
        return await self._here().writer.call(handing_over.put_back)

    def _announce(self) -> None:
        """Wake the waiting workers of all processes after a transaction has queued something."""
        opened = self._opened
        if opened is not None and opened.pid == os.getpid():
            opened.writer.submit([FunctionOperation(_something_is_queued)])


def _something_is_queued(connection: Connection) -> None:
    connection.queued = True
