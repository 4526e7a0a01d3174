"""The parts of an open engine in one process: its thread, its connections, and the lanes of its calls."""

import os
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from afterwards import telemetry
from afterwards.core.errors import EngineUnavailable
from afterwards.core.lifecycle import Start
from afterwards.core.settling import Settled
from afterwards.core.task import Lease, Task
from afterwards.engine import Claim, Dispatched
from afterwards.engines.postgres.io.address import Address
from afterwards.engines.postgres.io.loop import Lane, LoopThread
from afterwards.engines.postgres.io.notifying import Notifier
from afterwards.engines.postgres.io.transactions import PATIENCE, Make, Server
from afterwards.engines.postgres.likely_lanes import LikelyLanes
from afterwards.engines.postgres.operations import (
    claiming,
    dispatching,
    finishing,
    looking,
    publishing,
    storing,
    successors,
)
from afterwards.engines.postgres.operations.storing import Call, Stored
from afterwards.engines.postgres.unclaimed_leases import UnclaimedLeases
from afterwards.engines.postgres.work import Operation, Work
from afterwards.engines.wakeup import Wakeup

R = TypeVar("R")

MOST_STORED = 1000
"""Tasks of different calls that share one transaction."""

MOST_WITH_RULES = 100
"""Tasks with keys from different calls that share one transaction: each key takes a lock, and the server has few."""

MOST_FINISHED = 500
"""Ends of attempts from different calls that share one transaction."""


SOON = 0.1
"""Seconds until a worker looks again for tasks that other transactions had locked."""


class Opened:
    """The part of an engine that a fork must not share."""

    def __init__(self, address: Address) -> None:
        self.pid = os.getpid()
        self.wakeup = Wakeup()
        self._attending = False
        self.room_at: datetime | None = None  # when a rate that a claim found used up lets another task start
        self.thread = thread = LoopThread()
        self.server = Server(address, self._after_commit, partial(thread.spawn, background=True))
        self._likely = LikelyLanes()
        self.notifier = Notifier(self.server, self._woken)
        self.unclaimed = UnclaimedLeases(thread, self._finish_one)
        # Calls without rules never wait for the keys and queues of other calls.
        self.enqueue = Lane[Call, Stored](thread, self._enqueue, most=MOST_STORED, size=_size)
        self.enqueue_by_rules = Lane[Call, Stored](thread, self._enqueue, most=MOST_WITH_RULES, size=_size, in_flight=3)
        self.finish = Lane[Sequence[Settled], list[Lease]](thread, self._finish, most=MOST_FINISHED, size=len)
        self.publish = Lane[Sequence[tuple[Lease, Start]], None](thread, self._publish, most=MOST_STORED, size=len)
        self._calls = Lane[Callable[[], Coroutine[Any, Any, Any]], Any](thread, _run_alone, most=0, in_flight=10**6)

    def _woken(self) -> None:
        self._likely.expect()
        self.wakeup.set()

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Finish the calls made so far, and close the connections. Blocks; may be called in any thread."""
        self.thread.stop(patience=PATIENCE, last=self.server.connections.close)

    async def prepare(self) -> None:
        """Connect, and begin to send and receive hints. Raises EngineUnavailable or EngineError."""
        await self._call(self.server.prepare)
        self.thread.post(self._attend)

    def _attend(self) -> None:
        """Begin to send and receive hints. A fork, which nobody has entered, does so after its first transaction."""
        if self.server.schema is not None and not self._attending:
            self._attending = True
            self.thread.spawn(self.notifier.listen(), background=True)
            self.thread.spawn(self.notifier.send(), background=True)

    async def transact(self, make: Make[R]) -> R:
        return await self._call(partial(self.server.transact, make))

    async def move(self, make: Make[R]) -> R:
        return await self._call(partial(self.server.move, make))

    async def read(self, make: Make[R]) -> R:
        return await self._call(partial(self.server.read, make))

    async def ask(self, question: Callable[[], Operation[R]]) -> R:
        return await self._call(partial(self.server.ask, question))

    async def claim(self, claim: Claim) -> list[Task]:
        """Lease tasks. They are released if the caller is cancelled, or if the answer is lost."""
        taken: list[Task] = await self._calls.call(
            partial(self._claim, claim), lambda tasks: self.unclaimed.release(tasks, ())
        )
        return taken

    async def dispatch(self, ahead: Claim, again: timedelta) -> Dispatched:
        """Choose and mark what to send. If the answer is lost, it is sent after ``again``."""
        return await self._call(partial(self._dispatch, ahead, again))

    async def _call(self, make: Callable[[], Coroutine[Any, Any, R]]) -> R:
        result: R = await self._calls.call(make)
        return result

    async def _claim(self, claim: Claim) -> list[Task]:
        if routes := self._likely.routes(claim):
            return self._likely.note(
                claim, await self._leasing(lambda work: claiming.claim_again(work, claim, routes), ())
            )
        seen = await self.server.ask(looking.look)
        self._likely.look(claim, seen)
        if not claiming.is_needed(claim, seen):
            return []
        return self._likely.note(claim, await self._leasing(lambda work: claiming.claim(work, claim, seen), ()))

    async def _dispatch(self, ahead: Claim, again: timedelta) -> Dispatched:
        seen = await self.server.ask(looking.look)
        if not dispatching.is_needed(ahead, seen):
            return Dispatched([], more=False)
        make = partial(dispatching.dispatch, ahead=ahead, again=again, seen=seen)
        return await self.server.transact(make, opening=dispatching.OPENING_OF_A_DISPATCH)

    async def _enqueue(self, calls: Sequence[Call]) -> Sequence[Stored]:
        def make(work: Work) -> Operation[list[Stored]]:
            return storing.enqueue(work, calls, is_alone=True)

        if not any(call.claim for call in calls):
            return await self.server.transact(make, lazily=True)
        return await self._leasing(make, {new.id for call in calls for new in call.tasks if new.held})

    async def _leasing(self, make: Make[R], held: Collection[str]) -> R:
        """Run a transaction that leases tasks. If it is not known whether it was committed, they are released."""
        last = Work()

        def noted(work: Work) -> Operation[R]:
            nonlocal last
            last = work
            return make(work)

        try:
            return await self.server.transact(noted, opening=looking.OPENING_OF_A_CLAIM, lazily=True)
        except EngineUnavailable:
            self.unclaimed.release(last.leased, held)
            raise

    async def _finish(self, calls: Sequence[Sequence[Settled]]) -> Sequence[list[Lease]]:
        return await self.server.transact(lambda work: finishing.finish(work, calls), lazily=True)

    async def _finish_one(self, settled: Sequence[Settled]) -> object:
        return await self._finish([settled])

    async def _publish(self, calls: Sequence[Sequence[tuple[Lease, Start]]]) -> Sequence[None]:
        starts = [start for call in calls for start in call]
        await self.server.transact(lambda work: publishing.publish(work, starts), lazily=True)
        return [None] * len(calls)

    def _after_commit(self, work: Work) -> None:
        self._attend()
        if work.room_at is not None:
            self.room_at = work.room_at
        if work.queued:
            self.notifier.hint()
        if work.passed_by:
            self.thread.loop.call_later(SOON, self.notifier.hint)
        if work.left_behind:
            self.thread.spawn(self._go_on())
        for one in work.set_aside:
            telemetry.set_aside(one.id, one.name, one.reason)

    async def _go_on(self) -> None:
        """Decide on tasks behind others that a transaction has left."""
        with suppress(EngineUnavailable):  # the maintenance of some process goes on with them
            await self.server.transact(successors.go_on)


def _size(call: Call) -> int:
    return len(call.tasks)


async def _run_alone(calls: Sequence[Callable[[], Coroutine[Any, Any, Any]]]) -> Sequence[Any]:
    [make] = calls
    return [await make()]
