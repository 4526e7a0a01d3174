"""The engine's methods: each hands a function to the thread that writes or the one that reads."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from afterwards.core.errors import EngineUnavailable, InvalidOption, QueueFull
from afterwards.core.lifecycle import Settled, Start
from afterwards.core.routing import LiveWorker, Unroutable
from afterwards.core.schedule import StoredSchedule
from afterwards.core.shortage import is_shortage
from afterwards.core.task import Lease, NewTask, Task
from afterwards.engine import Chunk, Claim, Fire, Heartbeat, Held, Paused, Query, Stats, Transaction
from afterwards.engines.sqlite import rows
from afterwards.engines.sqlite.io import backup
from afterwards.engines.sqlite.io.checks import check_place
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.io.runtime import Opened, Settings, gate, say_what_is_old, say_what_joining_risks
from afterwards.engines.sqlite.io.thread import Operation
from afterwards.engines.sqlite.operations import (
    claiming,
    clock_correction,
    files,
    finishing,
    pausing,
    reading,
    registration,
    scheduling,
    set_aside,
    storing,
    successors,
)
from afterwards.engines.sqlite.operations.finishing import Piece
from afterwards.engines.sqlite.operations.joined import Joined, is_on
from afterwards.engines.sqlite.operations.unclaimed_leases import Enqueue, Undelivered

MOST_CHANGED = 100
"""Tasks that one transaction cancels or requeues, so that none takes long."""

MOST_PRUNED = 500
"""Rows that one transaction deletes, so that none takes long."""


class SQLiteEngine:
    """Tasks in one file, for any number of processes of one machine. What was stored survives a power cut.

    It may be opened several times at once, from any event loop; the last one to leave closes it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        patience: timedelta = timedelta(seconds=5),
    ) -> None:
        if str(path) in ("", ":memory:") or str(path).startswith("file:"):
            raise InvalidOption(f"{str(path)!r} is not the path of a file: for tasks in memory give memory://")
        self._settings = Settings(path=Path(os.path.realpath(path)), clock=clock, patience=patience)
        self._opened: Opened | None = None
        self._users = 0
        self._undelivered = Undelivered(clock)

    async def enqueue(self, tasks: Sequence[NewTask], *, claim: Claim | None = None) -> list[Task]:
        if not tasks:
            return []
        opened = self._here()
        call = Enqueue(tasks, claim, opened, self._undelivered)
        if claim is None:
            stored = await opened.writer.call(call, only_adds=True)
        else:
            opened.presence.note(claim.worker)
            stored = await opened.writer.call(call, undelivered=call.give_back, only_adds=True, turn=2)
        if isinstance(stored, QueueFull):
            raise stored
        return self._undelivered.left_out(stored)

    async def refuse_full(self, tasks: Sequence[NewTask]) -> None:
        if full := await self._here().reader.call(partial(storing.full_queue, tasks=tasks)):
            raise full

    def join(self, transaction: Transaction) -> Joined | None:
        if not is_on(self._settings.path, transaction):
            return None
        say_what_joining_risks()
        joined = Joined(transaction, self._settings.clock, self._announce)
        if self._opened is None:  # else our tables are there
            joined.prepare(self._settings.path)
        return joined

    async def publish(self, starts: Sequence[tuple[Lease, Start]]) -> None:
        if starts:
            await self._here().writer.call(partial(storing.publish, starts=starts))

    async def get(self, ids: Sequence[str]) -> list[Task]:
        return await self._here().reader.call(partial(reading.get, ids=ids)) if ids else []

    async def cancel(self, ids: Sequence[str], reason: str) -> list[Task]:
        await self._in_pieces(ids, lambda some: partial(finishing.cancel, ids=some, reason=reason))
        return await self.get(ids)

    async def claim(self, claim: Claim) -> list[Task]:
        opened = self._here()
        opened.wakeup.clear()
        opened.presence.note(claim.worker)
        return await opened.writer.call(
            partial(_claim, claim=claim),
            turn=1,
            needed=partial(claiming.is_there_any, claim=claim),
            otherwise=[],
            undelivered=partial(self._undelivered.give_back, opened),
        )

    async def heartbeat(self, beats: Sequence[Heartbeat], *, lease: timedelta) -> list[Held]:
        if not beats:
            return []
        return await self._here().writer.call(partial(claiming.heartbeat, beats=beats, lease=lease))

    async def finish(self, settled: Sequence[Settled]) -> list[Lease]:
        if not settled:
            return []
        return await self._here().writer.call(partial(finishing.finish, settled=settled), patient=True)

    async def expired(self, limit: int) -> list[Task]:
        """Those whose worker is known to be dead are found at once: their leases are ended here."""
        opened = self._here()
        with opened.presence.dead() as workers:
            if workers:
                await opened.writer.call(partial(claiming.expire, workers=workers))
        await self._go_on_behind()  # what another process has left that died
        tasks, unreadable = await opened.reader.call(partial(reading.expired, limit=limit))
        if unreadable:
            await opened.writer.call(partial(set_aside.put_lost, seqs=unreadable))
        return tasks

    async def put_right(self, lease: timedelta) -> bool:
        return await self._here().writer.call(
            partial(clock_correction.put_right, lease=lease),
            needed=partial(clock_correction.is_any_wrong, lease=lease),
            otherwise=False,
        )

    async def requeue(self, ids: Sequence[str]) -> list[Task]:
        if not ids:
            return []
        ordered = await self._here().reader.call(partial(reading.in_the_order_stored, ids=ids))
        return await self._in_pieces(ordered, lambda some: partial(finishing.requeue, ids=some))

    async def _in_pieces(
        self, ids: Sequence[str], change: Callable[[Sequence[str]], Callable[[Connection], Piece]]
    ) -> list[Task]:
        """In several transactions, if there are many: each leaves the others a turn. Returns what was changed."""
        changed: list[Task] = []
        left = ids
        while left:
            piece = await self._here().writer.call(change(left[:MOST_CHANGED]))
            changed += piece.changed
            left = left[piece.done :]
            while piece.left_behind and await self._go_on_behind():
                pass
        return changed

    async def _go_on_behind(self) -> bool:
        """Decide on tasks behind others that are left. Returns whether more are."""
        return await self._here().writer.call(successors.go_on, needed=successors.is_any_left, otherwise=False, turn=2)

    async def find(self, query: Query) -> list[Task]:
        return await self._here().reader.call(partial(reading.find, query=query))

    async def stats(self) -> Stats:
        return await self._here().reader.call(reading.stats)

    async def prune(self, limit: int) -> int:
        """In several transactions, if there are many: each leaves the others a turn."""
        pruned = 0
        while pruned < limit:
            some = min(limit - pruned, MOST_PRUNED)
            count = await self._here().writer.call(
                partial(finishing.prune, limit=some), needed=finishing.is_any_over, otherwise=0
            )
            pruned += count
            if count < some:
                break
        await self._delete_files_over()
        await self._here().writer.call(set_aside.put_odd, needed=set_aside.is_any_odd)
        await self._here().writer.call(registration.forget, needed=registration.is_any_forgotten)
        return pruned

    async def delete_files(self, tasks: Sequence[str]) -> None:
        if tasks:
            await self._here().writer.call(partial(files.release, tasks=[rows.key(task) for task in tasks]))
            await self._delete_files_over()

    async def _delete_files_over(self) -> None:
        """In several transactions, if there are many: each leaves the others a turn."""
        while await self._here().writer.call(files.delete_some, needed=files.is_any_over, otherwise=False):
            pass

    async def write_chunks(self, chunks: Sequence[Chunk]) -> None:
        if chunks:
            await self._here().writer.call(partial(files.write, chunks=chunks))

    async def read_chunks(self, file: str, *, start: int, limit: int) -> list[bytes]:
        return await self._here().reader.call(partial(files.read, file=file, start=start, limit=limit))

    async def backup(self, path: Path) -> None:
        """On a connection of its own, in a thread of its own: nobody waits for it."""
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
                opened.writer.room_at = None  # once: the next claim says whether there is another one
        await opened.wakeup.wait(max(timedelta(), timeout))

    async def pause(self, paused: Paused) -> None:
        await self._here().writer.call(partial(pausing.pause, paused=paused))

    async def resume(self, paused: Paused) -> None:
        await self._here().writer.call(partial(pausing.resume, paused=paused))

    async def paused(self) -> Paused:
        return await self._here().reader.call(pausing.paused)

    async def register_schedules(self, expressions: Mapping[str, str]) -> list[StoredSchedule]:
        if expressions:
            await self._here().writer.call(
                partial(scheduling.register, expressions=expressions),
                needed=partial(scheduling.is_any_new, expressions=expressions),
            )
        return await self._here().reader.call(scheduling.schedules)

    async def fire(self, fires: Sequence[Fire]) -> list[Task]:
        if not fires:
            return []
        return await self._here().writer.call(
            partial(scheduling.fire, fires=fires),
            needed=partial(scheduling.may_any_fire, fires=fires),
            otherwise=[],
        )

    async def announce(self, workers: Sequence[LiveWorker]) -> None:
        if workers:
            await self._here().writer.call(partial(registration.announce, workers=workers))

    async def workers(self, since: timedelta) -> list[LiveWorker]:
        return await self._here().reader.call(partial(registration.workers, since=since))

    async def unroutable(self, waited: timedelta) -> list[Unroutable]:
        return await self._here().reader.call(partial(registration.unroutable, waited=waited))

    async def __aenter__(self) -> Self:
        """Raises EngineError for a file that is not ours or too new, UnsafeFileSystem, EngineUnavailable."""
        check_place(self._settings.path)
        with gate:
            self._users += 1
        try:
            await self._here().writer.call(_nothing, needed=_never)
        except BaseException:
            await self._leave(refused=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Does what was asked so far."""
        await self._leave()

    async def _leave(self, *, refused: bool = False) -> None:
        with gate:
            self._users -= 1
            if self._users > 0:
                return
            opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            opened.writer.hand_in()
            opened.reader.hand_in()
            try:
                await asyncio.to_thread(opened.stop, refused=refused)
            except RuntimeError as error:
                if not is_shortage(error):
                    raise
                opened.stop(refused=refused)  # the system has no thread left: then here

    def _here(self) -> Opened:
        """What is open in this process: a fork opens its own."""
        opened = self._opened
        if opened is None or opened.pid != os.getpid():
            with gate:
                opened = self._open()
        return opened

    def _open(self) -> Opened:
        if self._users == 0:
            raise EngineUnavailable(f"{self._settings.path} is not open: enter the engine with `async with` first")
        if self._opened is None or self._opened.pid != os.getpid():
            if self._opened and self._opened.in_use:
                raise EngineUnavailable(f"this process was forked in the middle of a write to {self._settings.path}")
            say_what_is_old()
            try:
                opened = Opened(self._settings)
                opened.start()
            except (OSError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and not is_shortage(error):
                    raise
                needs = "; its folder must be writable" if isinstance(error, PermissionError) else ""
                raise EngineUnavailable(f"{self._settings.path} cannot be opened: {error}{needs}") from error
            self._opened = opened
        return self._opened

    def _announce(self) -> None:
        """Tell the waiting workers of all processes that a transaction has queued something."""
        opened = self._opened
        if opened is not None and opened.pid == os.getpid():
            opened.writer.submit([Operation(_something_is_queued)])


def _claim(connection: Connection, claim: Claim) -> list[Task]:
    if claim.ids is not None:
        finishing.bring_back(connection, claim.ids)
    look = connection.look()
    if look.overdue:
        finishing.expire(connection)
        look = connection.look()
        if look.overdue:  # very many: none of them may begin, so the worker is to come again
            connection.queued = True
            return []
    return claiming.claim(connection, claim, look)


def _nothing(connection: Connection) -> None:
    """What is asked of a thread only to see whether it can open the file."""


def _something_is_queued(connection: Connection) -> None:
    connection.queued = True


def _never(connection: Connection) -> bool:
    return False
