"""Moved tasks in their new engine: beside those it has, with their keys, leases and the tasks behind them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from afterwards.core.settling import SetAside
from afterwards.core.task import State
from afterwards.engine import Engine, Heartbeat, Query
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.moving_support import (
    DAY,
    HOUR,
    MovingConformance,
)
from afterwards.testing.conformance.support import (
    FAILURE,
    LEASE,
    SOON,
    SUCCESS,
    ids,
)


class MovedTasks(MovingConformance):
    """A moved task goes on where it was, as if it had always been stored there."""

    async def test_a_lease_goes_on_in_the_destination(self, engine: Engine, other: Engine, clock: FakeClock) -> None:
        held, expiring = await self.running(other), await self.running(other)
        await self.move(other, engine)
        assert await self.finish(other, held, SUCCESS) == [held.lease]
        assert [one.lease for one in await engine.heartbeat([Heartbeat(held.lease)], lease=LEASE * 3)] == [held.lease]
        assert await engine.expired(10) == []
        clock.advance(LEASE * 2)
        assert ids(await engine.expired(10)) == [expiring.id]
        await self.lose(engine, await engine.expired(10))
        assert await self.finish(engine, expiring, SUCCESS) == [expiring.lease]
        await self.succeed(engine, held)

    async def test_moved_tasks_come_before_those_stored_in_the_destination(self, engine: Engine, other: Engine) -> None:
        older, newer = [self.task() for _ in range(5)], [self.task() for _ in range(2)]
        await other.enqueue(older)
        await engine.enqueue(newer[:1])
        await self.move(other, engine)
        await engine.enqueue(newer[1:])
        assert ids(await engine.find(Query()))[::-1] == ids(older + newer)
        assert ids(await self.claim(engine)) == ids(older + newer)

    async def test_a_task_whose_id_is_stored_already_stays_as_it_is(self, engine: Engine, other: Engine) -> None:
        both, alone = self.task(arguments='{"from": "there"}'), self.task()
        await other.enqueue([both, alone])
        await engine.enqueue([replace(both, arguments='{"from": "here"}')])
        await self.move(other, engine)
        assert (await self.one(engine, both)).arguments == '{"from": "here"}'
        assert ids(await engine.find(Query()))[::-1] == ids([alone, both])
        await other.enqueue([both])
        batch_of_one = await other.hand_over("here", limit=1)
        assert batch_of_one
        assert (await engine.take_over(batch_of_one)).known == [both.id]

    async def test_keys_are_moved_with_their_tasks(self, engine: Engine, other: Engine) -> None:
        unique, idempotent = self.task(unique_key="u"), self.task(idempotency_key="i")
        await other.enqueue([unique, idempotent])
        [twin] = await other.enqueue([alias := self.task(unique_key="u")])
        assert twin.id == unique.id
        await self.move(other, engine, limit=1)
        again = await engine.enqueue([self.task(unique_key="u"), self.task(idempotency_key="i")])
        assert ids(again) == ids([unique, idempotent])
        assert ids(await engine.get([alias.id])) == [unique.id]
        assert ids(await engine.cancel([alias.id], "no")) == [unique.id]

    async def test_a_key_that_a_task_has_here_is_left_out_of_the_moved_one(self, engine: Engine, other: Engine) -> None:
        here = [self.task(unique_key="u"), self.task(idempotency_key="i")]
        there = [self.task(unique_key="u"), self.task(idempotency_key="i"), self.task(unique_key="u")]
        await other.enqueue(there[:1])
        await self.succeed(other, *await self.claim(other))
        await other.enqueue(there[1:])
        await engine.enqueue(here)
        counts = await other.hand_over("here", limit=10)
        batch = await other.hand_over("here", limit=10, done=counts)
        assert batch
        arrived = await engine.take_over(batch)
        assert {*arrived.without_keys} == {*ids(there[1:])}
        keys = [(task.unique_key, task.idempotency_key) for task in await engine.get(ids(there))]
        assert keys == [("u", None), (None, None), (None, None)]  # a finished task keeps its unique key
        assert ids(await engine.enqueue([self.task(unique_key="u")])) == [here[0].id]
        assert len(await self.claim(engine)) == 4

    async def test_a_task_arrives_after_those_behind_it(self, engine: Engine, other: Engine) -> None:
        first = self.task(retention=timedelta())
        second = self.task(after=first.id, retention=timedelta())
        await engine.enqueue([first, second, third := self.task(after=second.id)])
        done = None
        for _ in range(3):  # with a worker that takes what it can, and a prune, between any two of them
            done = await engine.hand_over("there", limit=1, done=done)
            assert done
            await other.take_over(done)
            await self.succeed(other, *await self.claim(other))
            await other.prune(10)
        await self.succeed(other, *await self.claim(other))
        await self.succeed(other, *await self.claim(other))
        assert (await self.one(other, third)).state is State.SUCCEEDED

    @pytest.mark.parametrize(("outcome", "state"), [(SUCCESS, State.QUEUED), (FAILURE, State.CANCELLED)])
    async def test_a_task_that_waits_for_one_that_ended_here_follows_it(
        self, engine: Engine, other: Engine, outcome: Any, state: State
    ) -> None:
        first = self.task()
        await other.enqueue([first, second := self.task(after=first.id), third := self.task(after=second.id)])
        await engine.enqueue([first])
        [taken] = await self.claim(engine)
        await self.finish(engine, taken, outcome)
        await self.move(other, engine, limit=1)
        after = [state, State.WAITING if state is State.QUEUED else state]
        assert await self.states(engine, second, third) == after

    @pytest.mark.parametrize(("outcome", "state"), [(SUCCESS, State.QUEUED), (FAILURE, State.CANCELLED)])
    async def test_a_task_that_waits_here_follows_one_that_arrives_finished(
        self, engine: Engine, other: Engine, outcome: Any, state: State
    ) -> None:
        first = self.task()
        await other.enqueue([first, second := self.task(after=first.id)])
        waiting = await other.hand_over("here", limit=1)
        assert waiting
        await engine.take_over(waiting)
        [taken] = await self.claim(other)
        await self.finish(other, taken, outcome)
        counts = await other.hand_over("here", limit=1, done=waiting)
        ended = await other.hand_over("here", limit=1, done=counts)
        assert ended
        await engine.take_over(ended)
        assert await self.states(engine, second) == [state]

    async def test_the_instants_that_records_do_not_show_are_moved(
        self, engine: Engine, other: Engine, clock: FakeClock
    ) -> None:
        clock.advance(DAY)
        delayed, at = self.task("thank", wait=HOUR), self.task("thank", run_at=START + DAY * 3)
        await other.enqueue([self.task(), delayed, at])
        clock.advance(SOON)
        await self.move(other, engine)
        clock.advance(SOON)
        [waiting] = await engine.unroutable(SOON * 2)
        assert (waiting.count, waiting.since) == (1, START + DAY)
        assert await engine.unroutable(SOON * 2 + timedelta(seconds=1)) == []
        clock.advance(-DAY - SOON * 2)
        assert await engine.put_right(LEASE)
        runs_at = [task.run_at for task in await engine.get(ids([delayed, at]))]
        assert runs_at == [START + HOUR, START + DAY * 3]

    async def test_a_task_that_was_set_aside_waits_for_other_code_there_too(
        self, engine: Engine, other: Engine
    ) -> None:
        task = await self.ended(other, SetAside("its arguments do not fit"))
        await self.move(other, engine)
        assert await self.claim(engine) == []
        assert ids(await engine.find(Query(set_aside=True))) == [task.id]
        assert ids(await self.claim(engine, ids=[task.id])) == [task.id]

    async def test_moved_tasks_can_be_requeued_with_those_behind_them(self, engine: Engine, other: Engine) -> None:
        first = self.task()
        await other.enqueue([first, *(behind := [self.task(after=first.id) for _ in range(300)])])
        [taken] = await self.claim(other)
        await self.finish(other, taken, FAILURE)
        await self.move(other, engine, limit=200)
        assert ids(await engine.requeue([first.id])) == [first.id]
        assert await self.states(engine, *behind) == [State.WAITING] * 300
