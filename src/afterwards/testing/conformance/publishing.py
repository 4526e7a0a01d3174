"""Publish: a held task waits for the end of its request."""

from datetime import timedelta

import pytest

from afterwards.core.lifecycle import HOLD
from afterwards.core.task import Lease, State
from afterwards.engine import Engine
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance.support import MICROSECOND, RETRY, SOON, Conformance, ids


class Publishing(Conformance):
    """A stored task need not be startable: a held task waits for the end of its request."""

    async def test_a_held_task_cannot_be_claimed(self, engine: Engine, clock: FakeClock) -> None:
        [task] = await engine.enqueue([self.task(held=True)])
        assert (task.state, task.run_at) == (State.SCHEDULED, clock() + HOLD)
        assert await self.claim(engine) == []

    async def test_a_published_task_can_be_claimed(self, engine: Engine) -> None:
        [task] = await engine.enqueue([self.task(held=True)])
        await engine.publish([(task.lease, None)])
        stored = await self.one(engine, task)
        assert (stored.state, stored.run_at) == (State.QUEUED, None)
        assert ids(await self.claim(engine)) == [task.id]

    async def test_a_held_task_whose_process_died_becomes_due_by_itself(self, engine: Engine, clock: FakeClock) -> None:
        [task] = await engine.enqueue([self.task(held=True)])
        clock.advance(HOLD - MICROSECOND)
        assert await self.claim(engine) == []
        clock.advance(MICROSECOND)
        assert ids(await self.claim(engine)) == [task.id]

    async def test_a_held_task_may_have_a_time_of_its_own(self, engine: Engine, clock: FakeClock) -> None:
        """A start time before the end of its request does not start it."""
        soon, late = await engine.enqueue([self.task(held=True, wait=SOON), self.task(held=True, wait=2 * HOLD)])
        assert (soon.state, soon.run_at) == (State.SCHEDULED, clock() + HOLD)
        assert (late.state, late.run_at) == (State.SCHEDULED, clock() + 2 * HOLD)
        await engine.publish([(soon.lease, clock() + SOON)])
        stored = await self.one(engine, soon)
        assert (stored.state, stored.run_at) == (State.SCHEDULED, clock() + SOON)
        clock.advance(SOON)
        await engine.publish([(late.lease, clock() - SOON)])
        assert sorted(ids(await self.claim(engine))) == sorted([soon.id, late.id])

    async def test_what_is_published_together_may_have_different_times(self, engine: Engine, clock: FakeClock) -> None:
        asked = [self.task(held=True, wait=number * SOON) for number in (0, 1, 0, 2)]
        now, soon, at_once, late = await engine.enqueue(asked)
        times = [(soon.lease, clock() + SOON), (at_once.lease, None), (late.lease, 2 * SOON)]
        await engine.publish([(now.lease, None), *times])
        assert [task.run_at for task in await engine.get(ids(asked))] == [
            None,
            clock() + SOON,
            None,
            clock() + 2 * SOON,
        ]
        assert ids(await self.claim(engine)) == ids([now, at_once])
        clock.advance(SOON)
        assert ids(await self.claim(engine)) == [soon.id]
        clock.advance(SOON)
        assert ids(await self.claim(engine)) == [late.id]

    async def test_what_is_kept_back_waits_from_now_on(self, engine: Engine, clock: FakeClock) -> None:
        [task] = await engine.enqueue([self.task(held=True, wait=SOON)])
        clock.advance(SOON)
        await engine.publish([(task.lease, HOLD)])
        assert (await self.one(engine, task)).run_at == clock() + HOLD

    async def test_a_held_task_with_a_time_of_its_own_is_leased_to_nobody(self, engine: Engine) -> None:
        [task] = await engine.enqueue([self.task(held=True, wait=SOON)], claim=self.claim_for())
        assert (task.state, task.worker) == (State.SCHEDULED, None)

    async def test_a_held_task_can_be_kept_back_for_another_minute(self, engine: Engine, clock: FakeClock) -> None:
        [task] = await engine.enqueue([self.task(held=True)])
        clock.advance(HOLD / 2)
        await engine.publish([(task.lease, HOLD)])
        clock.advance(HOLD - MICROSECOND)
        assert await self.claim(engine) == []
        clock.advance(MICROSECOND)
        assert ids(await self.claim(engine)) == [task.id]

    async def test_a_task_kept_back_can_still_be_published(self, engine: Engine) -> None:
        [task] = await engine.enqueue([self.task(held=True)])
        await engine.publish([(task.lease, HOLD)])
        await engine.publish([(task.lease, None)])
        assert ids(await self.claim(engine)) == [task.id]

    async def test_publishing_twice_or_something_unknown_changes_nothing(self, engine: Engine) -> None:
        [task] = await engine.enqueue([self.task(held=True)])
        await engine.publish([(task.lease, None), (task.lease, None), (Lease(self.task().id, 0), None)])
        published = await self.one(engine, task)
        await engine.publish([(task.lease, None)])
        await engine.publish([(task.lease, HOLD)])
        assert await self.one(engine, task) == published

    @pytest.mark.parametrize("start", [None, HOLD])
    async def test_publishing_is_refused_once_the_task_was_claimed(
        self, engine: Engine, clock: FakeClock, start: timedelta | None
    ) -> None:
        [sent] = await engine.enqueue([self.task(held=True)])
        clock.advance(HOLD)
        [task] = await self.claim(engine)
        await engine.publish([(sent.lease, start)])
        assert await self.one(engine, task) == task
        await self.finish(engine, task, RETRY)
        retrying = await self.one(engine, task)
        await engine.publish([(sent.lease, start)])
        assert await self.one(engine, task) == retrying

    @pytest.mark.parametrize("start", [None, HOLD])
    async def test_publishing_does_not_bring_back_a_cancelled_task(
        self, engine: Engine, start: timedelta | None
    ) -> None:
        [task] = await engine.enqueue([self.task(held=True)])
        [cancelled] = await engine.cancel([task.id], "no")
        await engine.publish([(task.lease, start)])
        assert await self.one(engine, task) == cancelled

    async def test_a_held_task_behind_a_held_one_follows_it_without_another_wait(self, engine: Engine) -> None:
        first = self.task(held=True)
        second = self.task(held=True, after=first.id)
        stored = await engine.enqueue([first, second])
        assert [task.state for task in stored] == [State.SCHEDULED, State.WAITING]
        await engine.publish([(task.lease, None) for task in stored])
        assert await self.states(engine, first, second) == [State.QUEUED, State.WAITING]
        [task] = await self.claim(engine)
        await self.succeed(engine, task)
        assert ids(await self.claim(engine)) == [second.id]

    async def test_a_held_task_behind_one_that_has_succeeded_is_held(self, engine: Engine) -> None:
        first = await self.ended(engine)
        [task] = await engine.enqueue([self.task(held=True, after=first.id)])
        assert await self.claim(engine) == []
        await engine.publish([(task.lease, None)])
        assert ids(await self.claim(engine)) == [task.id]
