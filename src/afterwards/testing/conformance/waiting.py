"""Wait: a hint that there may be something to claim. These tests use real time, a few milliseconds of it."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

import pytest

from afterwards.core.lifecycle import HOLD
from afterwards.engine import Engine
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance.support import FAILURE, LEASE, RELEASE, Conformance

LONG = timedelta(minutes=10)
TIMEOUT = 5.0
"""Seconds of real time after which a hint counts as missing."""
SHORT = timedelta(milliseconds=5)


class Waiting(Conformance):
    """A worker that found nothing sleeps until there may be something to claim."""

    async def test_a_wait_ends_when_its_time_is_over(self, engine: Engine) -> None:
        await self.hinted(engine.wait(SHORT))
        await self.hinted(engine.wait(timedelta()))

    async def test_it_ends_when_a_task_is_stored(self, engine: Engine) -> None:
        await self.hints(engine, engine.enqueue([self.task()]))

    async def test_it_ends_when_a_held_task_is_published(self, engine: Engine) -> None:
        [task] = await engine.enqueue([self.task(held=True)])
        await self.hints(engine, engine.publish([(task.lease, None)]))

    async def test_it_ends_when_a_task_is_released(self, engine: Engine) -> None:
        task = await self.running(engine)
        await self.hints(engine, self.finish(engine, task, RELEASE))

    async def test_it_ends_when_the_task_before_another_succeeds(self, engine: Engine) -> None:
        task = await self.running(engine)
        await engine.enqueue([self.task(after=task.id)])
        await self.hints(engine, self.succeed(engine, task))

    async def test_it_ends_when_a_task_with_a_limit_succeeds(self, engine: Engine) -> None:
        task = await self.running(engine, limit_key="ada")
        await self.hints(engine, self.succeed(engine, task))

    async def test_it_ends_when_a_worker_is_lost(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        clock.advance(LEASE)
        await self.hints(engine, self.lose(engine, [task]))

    async def test_it_ends_when_a_task_is_requeued(self, engine: Engine) -> None:
        task = await self.ended(engine, FAILURE)
        await self.hints(engine, engine.requeue([task.id]))

    async def test_what_was_stored_since_the_last_claim_ends_it_at_once(self, engine: Engine) -> None:
        await self.claim(engine)
        await engine.enqueue([self.task()])
        await self.hinted(engine.wait(LONG))

    async def test_every_waiting_worker_is_told(self, engine: Engine) -> None:
        async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(engine.wait(LONG))
            await self.settle_down()
            await engine.enqueue([self.task()])

    async def test_a_worker_in_another_thread_is_told(self, engine: Engine) -> None:
        async def wait() -> None:
            await engine.wait(LONG)

        async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(asyncio.run, wait()))
            await self.settle_down()
            await engine.enqueue([self.task()])

    async def test_it_ends_when_a_task_becomes_due(self, engine: Engine) -> None:
        await engine.enqueue([self.task(wait=SHORT)])
        await self.claim(engine)
        await self.hinted(engine.wait(LONG))

    async def test_it_ends_at_once_when_a_task_is_due(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task(held=True)])
        await self.claim(engine)
        clock.advance(HOLD)
        await self.hinted(engine.wait(LONG))

    async def test_a_wait_can_be_given_up(self, engine: Engine) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                while True:  # a hint from the opening may still come
                    await self.claim(engine, names=["nothing that is stored"])
                    await engine.wait(LONG)
        await self.hints(engine, engine.enqueue([self.task()]))

    async def hints(self, engine: Engine, change: Awaitable[object]) -> None:
        """Check that a worker that found nothing and waits is told of the change."""
        await self.claim(engine, names=["nothing that is stored"])
        async with asyncio.TaskGroup() as group:
            group.create_task(self.hinted(engine.wait(LONG)))
            await self.settle_down()
            await change

    async def hinted(self, wait: Awaitable[None]) -> None:
        try:
            await asyncio.wait_for(wait, TIMEOUT)
        except TimeoutError:
            raise AssertionError(f"`wait` went on for {TIMEOUT:g} s of real time: a hint is missing") from None

    async def settle_down(self) -> None:
        """Let the other tasks run as far as they can. A hint that comes too early must not be lost either."""
        await asyncio.sleep(0.005)
