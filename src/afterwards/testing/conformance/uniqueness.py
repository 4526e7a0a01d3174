"""Tasks with unique keys."""

import asyncio
from dataclasses import replace

import pytest

from afterwards.core.task import State
from afterwards.engine import Engine, Query
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance.support import FAILURE, LEASE, RETRY, SNOOZE, SOON, SUCCESS, Conformance, ids


class Uniqueness(Conformance):
    """An existing task answers for a call that must not be stored beside it."""

    async def test_while_one_waits_or_runs_no_second_one_is_stored(self, engine: Engine) -> None:
        [first] = await engine.enqueue([self.task(unique_key="k")])
        assert await engine.enqueue([self.task(unique_key="k")]) == [first]
        [running] = await self.claim(engine)
        assert await engine.enqueue([self.task(unique_key="k")]) == [running]
        assert len(await engine.find(Query())) == 1

    @pytest.mark.parametrize("outcome", [SNOOZE, RETRY])
    async def test_one_that_will_run_again_still_answers(self, engine: Engine, outcome: object) -> None:
        task = await self.running(engine, unique_key="k")
        await self.finish(engine, task, outcome)  # type: ignore[arg-type]  # pytest's parameters have no types
        assert ids(await engine.enqueue([self.task(unique_key="k")])) == [task.id]

    @pytest.mark.parametrize("outcome", [SUCCESS, FAILURE])
    async def test_one_that_has_ended_answers_no_more(self, engine: Engine, outcome: object) -> None:
        await self.ended(engine, outcome, unique_key="k")  # type: ignore[arg-type]  # pytest's parameters have no types
        new = self.task(unique_key="k")
        assert ids(await engine.enqueue([new])) == [new.id]

    async def test_an_idempotency_key_answers_until_the_record_is_gone(self, engine: Engine, clock: FakeClock) -> None:
        ended = await self.ended(engine, idempotency_key="k", retention=SOON)
        assert await engine.enqueue([self.task(idempotency_key="k")]) == [ended]
        clock.advance(SOON)
        await engine.prune(limit=10)
        new = self.task(idempotency_key="k")
        assert ids(await engine.enqueue([new])) == [new.id]

    async def test_the_two_keys_are_apart(self, engine: Engine) -> None:
        await engine.enqueue([self.task(idempotency_key="k")])
        new = self.task(unique_key="k")
        assert ids(await engine.enqueue([new])) == [new.id]

    async def test_of_two_in_one_call_the_first_answers_for_both(self, engine: Engine) -> None:
        first, second = self.task(unique_key="k"), self.task(unique_key="k")
        assert ids(await engine.enqueue([first, second])) == [first.id, first.id]
        assert len(await engine.find(Query())) == 1

    async def test_of_calls_at_the_same_time_one_answers_for_all(self, engine: Engine) -> None:
        calls = [engine.enqueue([self.task(unique_key="k", idempotency_key="i")]) for _ in range(20)]
        stored = [task.id for tasks in await asyncio.gather(*calls) for task in tasks]
        assert len(stored) == 20
        assert len(set(stored)) == 1

    async def test_the_id_of_a_call_stands_for_the_task_that_answered(self, engine: Engine) -> None:
        [first] = await engine.enqueue([self.task(idempotency_key="k")])
        call = self.task(idempotency_key="k")
        await engine.enqueue([call])
        assert ids(await engine.get([call.id, first.id])) == [first.id, first.id]
        assert await engine.enqueue([call]) == [first]
        [cancelled] = await engine.cancel([call.id], "no")
        assert (cancelled.id, cancelled.state) == (first.id, State.CANCELLED)
        assert ids(await engine.requeue([call.id])) == [first.id]

    async def test_the_ids_go_with_the_task(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.ended(engine, idempotency_key="k", retention=SOON)
        call = self.task(idempotency_key="k")
        await engine.enqueue([call])
        clock.advance(SOON)
        await engine.prune(limit=10)
        assert await engine.get([call.id, task.id]) == []

    async def test_what_is_answered_leaves_the_chain_of_its_request(self, engine: Engine) -> None:
        [there] = await engine.enqueue([self.task(unique_key="k", wait=LEASE)])
        first, third = self.task(), self.task()
        answered = self.task(unique_key="k", after=first.id, chained=True)
        third = self.task(after=answered.id, chained=True)
        stored = await engine.enqueue([first, answered, third])
        assert [(task.id, task.after) for task in stored] == [
            (first.id, None),
            (there.id, None),
            (third.id, first.id),
        ]
        for new in (first, third):
            [task] = await self.claim(engine)
            assert task.id == new.id
            await self.succeed(engine, task)

    async def test_what_was_put_behind_it_by_hand_comes_behind_the_one_that_answered(self, engine: Engine) -> None:
        [there] = await engine.enqueue([self.task(unique_key="k")])
        answered = self.task(unique_key="k")
        behind = self.task(after=answered.id)
        await engine.enqueue([answered, behind])
        later = self.task(after=answered.id)
        await engine.enqueue([later])
        assert [task.after for task in await engine.get(ids([behind, later]))] == [there.id, there.id]
        await self.succeed(engine, *await self.claim(engine))
        assert ids(await self.claim(engine)) == ids([behind, later])

    async def test_one_that_is_stored_as_cancelled_answers_for_none(self, engine: Engine) -> None:
        failed = await self.ended(engine, FAILURE)
        cancelled, new = self.task(unique_key="k", after=failed.id), self.task(unique_key="k")
        stored = await engine.enqueue([cancelled, new])
        assert [(task.id, task.state) for task in stored] == [
            (cancelled.id, State.CANCELLED),
            (new.id, State.QUEUED),
        ]

    async def test_it_does_not_come_back_while_another_one_is_there(self, engine: Engine) -> None:
        ended = await self.ended(engine, FAILURE, unique_key="k")
        [there] = await engine.enqueue([self.task(unique_key="k")])
        assert await engine.requeue([ended.id]) == []
        await engine.cancel([there.id], "no")
        assert ids(await engine.requeue([ended.id])) == [ended.id]

    async def test_it_does_not_come_back_for_another_s_sake_either(self, engine: Engine) -> None:
        first = self.task()
        second = self.task(after=first.id, unique_key="k")
        third = self.task(after=second.id)
        await engine.enqueue([first, second, third])
        [running] = await self.claim(engine)
        await self.finish(engine, running, FAILURE)
        await engine.enqueue([self.task(unique_key="k")])
        await engine.requeue([first.id])
        assert await self.states(engine, first, second, third) == [State.QUEUED, State.CANCELLED, State.CANCELLED]

    async def test_it_holds_for_what_is_stored_with_the_end_of_another(self, engine: Engine) -> None:
        [there] = await engine.enqueue([self.task("told", unique_key="k")])
        failed = await self.running(engine)
        notice = self.task("told", unique_key="k")
        await engine.finish([replace(self.settled(failed, FAILURE), then=notice)])
        assert ids(await engine.get([notice.id])) == [there.id]
        assert len(await engine.find(Query(names=frozenset({"told"})))) == 1

    async def test_one_that_answers_is_not_leased_again(self, engine: Engine) -> None:
        running = await self.running(engine, unique_key="k")
        [answer] = await engine.enqueue([self.task(unique_key="k")], claim=self.claim_for("another"))
        assert answer == running
