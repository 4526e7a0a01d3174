"""Decide and store outcomes of attempts, then send notices and publish held tasks."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from afterwards import telemetry
from afterwards.core.settling import Outcome, Settled
from afterwards.core.task import FailedTask, Lease, State
from afterwards.engine import Engine
from afterwards.execution.failure_notice import MakeNotice, call_on_failure
from afterwards.execution.function import Runnable
from afterwards.execution.health import Health
from afterwards.execution.retrying import persist
from afterwards.execution.settling import settle
from afterwards.execution.threads import Threads
from afterwards.worker.chain_lengths import ChainLengths
from afterwards.worker.finisher import Finisher
from afterwards.worker.leased_task import LeasedTask, Phase
from afterwards.worker.leases import Leases
from afterwards.worker.spawner import Spawner


class Ends:
    """Settles the leased tasks of a worker."""

    def __init__(
        self,
        engine: Engine,
        leases: Leases,
        threads: Threads,
        spawner: Spawner,
        *,
        worker: str,
        make_notice: MakeNotice,
        clock: Callable[[], datetime],
        health: Health,
        linger: float,
    ) -> None:
        self.finisher = Finisher(engine, self, health, linger=linger)
        self._engine = engine
        self._leases = leases
        self._threads = threads
        self._spawner = spawner
        self._worker = worker
        self._make_notice = make_notice
        self._clock = clock
        self._chains = ChainLengths()

    def settle(self, leased: LeasedTask, outcome: Outcome) -> None:
        """Decide the next state of a task that has ended here, and have it stored."""
        if leased.lost:
            self._leases.drop(leased.lease)
            return
        if leased.began_at is not None:
            telemetry.count_attempt(leased.task, outcome, self._spawner.loop.time() - leased.began_at)
        settled, leased.failed = settle(
            leased.function,
            leased.task,
            outcome,
            worker=self._worker,
            clock=self._clock,
            make_notice=self._make_notice,
            progress=leased.asked.shown() if leased.asked else None,
            logs=leased.asked.logs.lines() if leased.asked else (),
        )
        self.finisher.add(settled, at_once=self._chains.is_long(leased.task))

    def refused(self, settled: Settled) -> None:
        if (leased := self._leases.get(settled.lease)) and settled.begun:
            telemetry.refused(leased.task, settled)

    def stored(self, batch: Sequence[Settled]) -> None:
        for settled in batch:
            leased = self._leases.drop(settled.lease)
            if leased and leased.failed:
                self.notify(leased.function, leased.failed)
            if leased and leased.phase is Phase.PUBLISHED and settled.state is State.SCHEDULED:
                self._spawner.start_and_keep(self._publish(settled.lease))

    def notify(self, function: Runnable, failed: FailedTask) -> None:
        """Call a plain ``on_failure`` for a failure that is stored."""
        self._spawner.start_and_keep(call_on_failure(function, failed, self._threads))

    async def _publish(self, lease: Lease) -> None:
        await persist("publish a task", partial(self._engine.publish, [(lease, None)]))
