"""Tasks that must start in time, and those that must not start again."""

import pytest

from afterwards.core.lifecycle import EXPIRED
from afterwards.core.settling import Released
from afterwards.core.task import FailureKind, State
from afterwards.engine import Engine
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance.support import LEASE, MICROSECOND, RETRY, SOON, Conformance, ids


class Expiring(Conformance):
    """No attempt of a task starts after the task has expired."""

    async def test_a_task_can_be_begun_until_it_expires(self, engine: Engine, clock: FakeClock) -> None:
        [task] = await engine.enqueue([self.task(expires=SOON)])
        assert task.expires_at == clock() + SOON
        clock.advance(SOON - MICROSECOND)
        assert len(await self.claim(engine)) == 1

    async def test_then_it_is_cancelled_instead_of_begun(self, engine: Engine, clock: FakeClock) -> None:
        [task] = await engine.enqueue([self.task(expires=SOON)])
        clock.advance(SOON)
        assert await self.claim(engine) == []
        stored = await self.one(engine, task)
        assert (stored.state, stored.reason, stored.finished_at) == (State.CANCELLED, EXPIRED, clock())

    async def test_of_very_many_none_begins(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task(expires=SOON) for _ in range(2500)])
        clock.advance(SOON)
        for _ in range(5):
            assert await self.claim(engine) == []

    async def test_one_that_waits_for_its_time_or_another_expires_too(self, engine: Engine, clock: FakeClock) -> None:
        running = await self.running(engine)
        tasks = [self.task(wait=LEASE, expires=SOON), self.task(after=running.id, expires=SOON)]
        await engine.enqueue(tasks)
        clock.advance(SOON)
        assert await self.claim(engine) == []
        assert await self.states(engine, *tasks) == [State.CANCELLED] * 2

    async def test_one_that_runs_goes_on_but_is_not_begun_again(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine, expires=SOON)
        clock.advance(SOON)
        assert await self.claim(engine) == []
        assert await self.states(engine, task) == [State.RUNNING]
        await self.finish(engine, task, RETRY)
        clock.advance(SOON)
        assert await self.claim(engine) == []
        assert await self.states(engine, task) == [State.CANCELLED]

    async def test_those_behind_it_are_cancelled_with_it(self, engine: Engine, clock: FakeClock) -> None:
        first = self.task(expires=SOON)
        second = self.task(after=first.id)
        third = self.task(after=second.id, expires=SOON)
        await engine.enqueue([first, second, third])
        clock.advance(SOON)
        await self.claim(engine)
        stored = await engine.get(ids([first, second, third]))
        assert [(task.state, task.cause) for task in stored] == [
            (State.CANCELLED, None),
            (State.CANCELLED, first.id),
            (State.CANCELLED, first.id),
        ]

    async def test_one_that_is_requeued_by_hand_expires_no_more(self, engine: Engine, clock: FakeClock) -> None:
        [task] = await engine.enqueue([self.task(expires=SOON)])
        clock.advance(SOON)
        await self.claim(engine)
        [queued] = await engine.requeue([task.id])
        assert queued.expires_at is None
        assert ids(await self.claim(engine)) == [task.id]


class RunningOnce(Conformance):
    """With ``rerun_after_crash=False``, an attempt that started and was lost is the last one."""

    async def test_a_crash_ends_it_as_failed(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine, rerun_after_crash=False)
        clock.advance(LEASE)
        await self.lose(engine, await engine.expired(limit=10))
        stored = await self.one(engine, task)
        assert (stored.state, [failure.kind for failure in stored.failures]) == (State.FAILED, [FailureKind.CRASHED])

    async def test_so_does_the_shutdown_of_its_worker(self, engine: Engine) -> None:
        task = await self.running(engine, rerun_after_crash=False)
        await self.finish(engine, task, Released())
        stored = await self.one(engine, task)
        assert (stored.state, [failure.kind for failure in stored.failures]) == (State.FAILED, [FailureKind.RELEASED])

    async def test_it_is_not_leased_before_it_can_begin(self, engine: Engine) -> None:
        held = self.task(rerun_after_crash=False, held=True)
        [stored] = await engine.enqueue([held], claim=self.claim_for())
        assert stored.state is State.SCHEDULED

    async def test_one_that_was_not_begun_goes_back(self, engine: Engine) -> None:
        task = await self.running(engine, rerun_after_crash=False)
        await self.finish(engine, task, Released(begun=False))
        assert await self.states(engine, task) == [State.QUEUED]

    @pytest.mark.parametrize("rerun", [True, False])
    async def test_what_it_raises_is_retried_all_the_same(self, engine: Engine, rerun: bool) -> None:
        task = await self.running(engine, rerun_after_crash=rerun)
        await self.finish(engine, task, RETRY)
        assert await self.states(engine, task) == [State.SCHEDULED]

    async def test_it_takes_those_behind_it_along(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine, rerun_after_crash=False)
        [behind] = await engine.enqueue([self.task(after=task.id)])
        clock.advance(LEASE)
        await self.lose(engine, await engine.expired(limit=10))
        assert (await self.one(engine, behind)).cause == task.id
