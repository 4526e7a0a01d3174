"""Stop attempts: those that were cancelled, lost their lease, or do not end by themselves."""

import asyncio
from collections.abc import Sequence
from math import inf

from afterwards import telemetry
from afterwards.core.keywords import RunIn
from afterwards.core.settling import Cancelled, Outcome, Raised, Released
from afterwards.core.task import FailureKind, Lease, Task
from afterwards.engine import Held
from afterwards.execution.function import options_of
from afterwards.worker.attempts import Attempts
from afterwards.worker.leased_task import LeasedTask
from afterwards.worker.leases import Leases
from afterwards.worker.lifetime import Lifetime
from afterwards.worker.racing import first
from afterwards.worker.spawner import Spawner

LOOK_EVERY = 1.0
"""Seconds between two checks for attempts that should have ended."""

CLEANING_UP = 4.0
"""Seconds that a cancelled attempt may take to clean up before it is cancelled again."""


class Stopping:
    """Asks attempts to stop, and abandons those that do not."""

    def __init__(self, attempts: Attempts, leases: Leases, spawner: Spawner, lifetime: Lifetime) -> None:
        self._attempts = attempts
        self._leases = leases
        self._spawner = spawner
        self._lifetime = lifetime
        self._abandoned: set[asyncio.Task[None]] = set()  # the event loop keeps only weak references to tasks

    def stop(self, leased: LeasedTask, outcome: Outcome, *, at_once: bool = False) -> None:
        """Cancel an attempt. A running thread cannot be stopped; its function is told to end.

        A process is told as well, and killed a moment later, or ``at_once``.
        """
        leased.ask_to_stop(outcome, self._spawner.loop.time())
        if leased.began_at is None:
            self._attempts.end(leased, outcome)
        elif not at_once and leased.function.run_in is RunIn.PROCESS:
            return
        if leased.asyncio_task and leased.drop_calls():
            leased.asyncio_task.cancel()

    def cancel(self, task: Task) -> None:
        """Stop a task that somebody asked to cancel, if it is here."""
        leased = self._leases.get(task.lease)
        if leased and task.cancel_requested is not None:
            self.stop(leased, Cancelled(task.cancel_requested))

    def renewed(self, asked: Sequence[Lease], held: Sequence[Held]) -> None:
        """Handle the results of a heartbeat: lost leases, and tasks that are to be cancelled."""
        ours = {one.lease for one in held}
        for lease in asked:
            leased = self._leases.get(lease)
            if leased and not leased.ended and not leased.lost and lease not in ours:
                telemetry.lease_gone(leased.task)
                leased.lost = True
                self.stop(leased, Released())
        for one in held:
            leased = self._leases.get(one.lease)
            if leased and one.cancel_requested is not None:
                self.stop(leased, Cancelled(one.cancel_requested))

    async def run(self) -> None:
        """Cancel attempts that swallowed their cancellation once more. Abandon those that swallow this one, too."""
        asked: set[LeasedTask] = set()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            now = self._spawner.loop.time()
            for one in self._attempts.running.values():
                if one.in_thread:
                    one.in_thread_at = now
            stubborn = {one for one in self._attempts.running.values() if is_overdue(one, now)}
            for leased in stubborn:
                if leased in asked:
                    self._abandon(leased)
                elif leased.asyncio_task:
                    leased.asyncio_task.cancel()
            asked = stubborn

    async def let_go(self) -> None:
        """Give attempts time to clean up, and keep the end of the event loop from waiting for the rest.

        `asyncio.run` cancels all tasks and waits for them: for ever, if one swallows each cancellation.
        """
        now = self._spawner.loop.time()
        running = self._attempts.running.items()
        alive = {stopping: until for stopping, one in running if (until := _cleans_up_until(one))}
        if alive and (pause := max(alive.values()) - now) > 0:
            await first(asyncio.wait(alive), self._lifetime.hurried.wait(), timeout=pause)
        for left in (*alive, *self._abandoned):
            if not left.done():
                asyncio._unregister_task(left)

    def _abandon(self, leased: LeasedTask) -> None:
        """Record the end of an attempt that still runs. It is not retried: the next attempt would run beside it."""
        assert leased.asyncio_task is not None
        self._abandoned.add(leased.asyncio_task)
        leased.asyncio_task.add_done_callback(self._abandoned.discard)
        outcome = leased.stop or _timed_out(leased)
        ends = "cancelled" if isinstance(outcome, Cancelled) else "failed"
        telemetry.left_running(leased.task, None if leased.lost else ends)
        self._attempts.end(leased, outcome)


def is_overdue(leased: LeasedTask, now: float) -> bool:
    """Return whether an attempt should have ended so long ago that it has had time to clean up.

    False for one that is given back or has a running thread: it would begin elsewhere while it still runs here. False
    for one in a process, which is killed. After a thread, the rest of an attempt has as long to clean up.
    """
    given_back = isinstance(leased.stop, Released) and not leased.lost
    if leased.function.run_in is RunIn.PROCESS or given_back or leased.in_thread or leased.began_at is None:
        return False
    ends = leased.deadline.ends_at if leased.deadline else None
    should_end = min(inf if ends is None else ends, inf if leased.stopped_at is None else leased.stopped_at)
    return now > max(should_end, leased.in_thread_at or -inf) + CLEANING_UP


def _cleans_up_until(leased: LeasedTask) -> float | None:
    """Return until when a stopped attempt may clean up. None if a thread runs for it, or it was not told to stop."""
    return None if leased.stopped_at is None or leased.in_thread else leased.stopped_at + CLEANING_UP


def _timed_out(leased: LeasedTask) -> Raised:
    timeout = options_of(leased.function, leased.task).timeout
    assert timeout is not None
    error = TimeoutError(
        f"took longer than its timeout of {timeout.total_seconds():g} s, and still runs although it was cancelled twice"
    )
    return Raised(error=error, kind=FailureKind.TIMED_OUT, final=True)
