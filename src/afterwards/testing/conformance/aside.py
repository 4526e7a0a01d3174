"""Tasks that some code cannot read and other code can; and how much of a long history is kept."""

from datetime import timedelta

from afterwards.core.limits import Limit
from afterwards.core.retry import Retry
from afterwards.core.settling import Raised, SetAside
from afterwards.core.task import FIRST_FAILURES, LAST_FAILURES, State, Task
from afterwards.engine import Engine, Query
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance.support import FAILURE, LEASE, SUCCESS, Conformance, ids

REFUSED = SetAside('arguments: parameter "name": it has no default, and is not stored')


class SettingAside(Conformance):
    """A task that a worker's code cannot read waits for other code."""

    async def set_aside(self, engine: Engine, **fields: object) -> Task:
        return await self.ended(engine, REFUSED, **fields)

    async def test_it_waits_uncharged_with_the_reason(self, engine: Engine) -> None:
        task = await self.set_aside(engine)
        assert (task.state, task.set_aside, task.unreadable) == (State.QUEUED, REFUSED.reason, None)
        assert (task.attempt, task.failed, task.crashed, task.failures) == (1, 0, 0, ())

    async def test_no_worker_claims_it_and_all_others_are_claimed(self, engine: Engine, clock: FakeClock) -> None:
        await self.set_aside(engine, priority=5)
        await engine.enqueue([other := self.task()])
        assert ids(await self.claim(engine, limit=1)) == [other.id]
        clock.advance(LEASE * 100)
        assert await self.claim(engine) == []

    async def test_new_tasks_are_leased_as_they_are_stored_beside_it(self, engine: Engine) -> None:
        await self.set_aside(engine)
        [stored] = await engine.enqueue([self.task()], claim=self.claim_for())
        assert stored.state is State.RUNNING

    async def test_it_is_listed_with_the_others_and_alone(self, engine: Engine) -> None:
        task = await self.set_aside(engine)
        await engine.enqueue([other := self.task()])
        assert ids(await engine.find(Query())) == [other.id, task.id]
        assert ids(await engine.find(Query(states=frozenset({State.QUEUED})))) == [other.id, task.id]
        for states in (None, frozenset({State.QUEUED})):
            assert await engine.find(Query(set_aside=True, states=states)) == [task]
        assert await engine.find(Query(set_aside=True, states=frozenset({State.RUNNING}))) == []
        assert await engine.find(Query(set_aside=True, names=frozenset({"thank"}))) == []
        assert (await engine.stats()).counts == {("default", State.QUEUED): 2}

    async def test_it_counts_as_waiting_neither_for_a_worker_nor_for_a_full_queue(self, engine: Engine) -> None:
        await self.set_aside(engine)
        assert await engine.unroutable(timedelta()) == []
        assert (await engine.stats()).oldest is None
        await engine.enqueue([self.task(max_queued=1)])

    async def test_whoever_claims_it_by_its_id_brings_it_back(self, engine: Engine) -> None:
        task = await self.set_aside(engine)
        [taken] = await self.claim(engine, ids=[task.id])
        assert (taken.state, taken.attempt, taken.set_aside) == (State.RUNNING, 2, None)
        await self.finish(engine, taken, SUCCESS)
        assert (await self.one(engine, task)).state is State.SUCCEEDED

    async def test_what_finds_no_slot_is_brought_back_for_any_worker(self, engine: Engine) -> None:
        tasks = [await self.set_aside(engine) for _ in range(3)]
        assert len(await self.claim(engine, limit=1, ids=ids(tasks))) == 1
        assert await engine.find(Query(set_aside=True)) == []
        assert len(await self.claim(engine)) == 2

    async def test_limits_hold_for_what_is_brought_back(self, engine: Engine) -> None:
        tasks = [await self.set_aside(engine, limit_key="*") for _ in range(2)]
        limits = {"greet": Limit(max_concurrency=1)}
        assert len(await self.claim(engine, ids=ids(tasks), limits=limits)) == 1

    async def test_it_can_be_cancelled_with_those_behind_it(self, engine: Engine) -> None:
        task = await self.set_aside(engine)
        await engine.enqueue([behind := self.task(after=task.id)])
        assert await self.states(engine, behind) == [State.WAITING]
        await engine.cancel([task.id], "not wanted")
        assert await self.states(engine, task, behind) == [State.CANCELLED] * 2
        assert await engine.find(Query(set_aside=True)) == []

    async def test_it_expires(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.set_aside(engine, expires=LEASE)
        clock.advance(LEASE)
        assert await self.claim(engine) == []
        expired = await self.one(engine, task)
        assert (expired.state, expired.set_aside) == (State.CANCELLED, None)

    async def test_its_unique_key_is_taken(self, engine: Engine) -> None:
        task = await self.set_aside(engine, unique_key="one")
        assert ids(await engine.enqueue([self.task(unique_key="one")])) == [task.id]

    async def test_a_cancel_that_crosses_it_wins(self, engine: Engine) -> None:
        task = await self.running(engine)
        await engine.cancel([task.id], "not wanted")
        await self.finish(engine, task, REFUSED)
        assert await self.states(engine, task) == [State.CANCELLED]


class ManyFailures(Conformance):
    """A long history costs no more than a short one."""

    async def failed_often(self, engine: Engine, times: int) -> Task:
        await engine.enqueue([new := self.task()])
        for number in range(times):
            [task] = await self.claim(engine, ids=[new.id])
            outcome = Raised(error=ValueError(number), delay=timedelta(), traceback="Traceback ...")
            settled = self.settled(task, outcome, Retry(times))
            assert await engine.finish([settled]) == []
        return await self.one(engine, new)

    async def test_of_many_failures_the_first_and_the_last_are_kept_and_the_others_counted(
        self, engine: Engine
    ) -> None:
        most = FIRST_FAILURES + LAST_FAILURES
        task = await self.failed_often(engine, most + 25)
        kept = [*range(1, FIRST_FAILURES + 1), *range(26 + FIRST_FAILURES, most + 26)]
        assert [failure.attempt for failure in task.failures] == kept
        assert (task.failures_left_out, task.failed, task.attempt) == (25, most + 25, most + 25)

    async def test_as_many_as_are_kept_are_all_kept(self, engine: Engine) -> None:
        most = FIRST_FAILURES + LAST_FAILURES
        task = await self.failed_often(engine, most)
        assert (len(task.failures), task.failures_left_out) == (most, 0)

    async def test_a_claim_reads_no_failures_and_what_is_expired_comes_without(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        await self.failed_often(engine, 3)
        [task] = await self.claim(engine)
        clock.advance(LEASE)
        [expired] = await engine.expired(1)
        assert (task.failures, expired.failures) == ((), ())
        assert len((await self.one(engine, task)).failures) == 3

    async def test_a_list_has_failures_without_their_tracebacks(self, engine: Engine) -> None:
        task = await self.failed_often(engine, 2)
        [listed] = await engine.find(Query())
        assert [failure.traceback for failure in task.failures] == ["Traceback ..."] * 2
        assert [failure.traceback for failure in listed.failures] == [""] * 2
        assert [failure.message for failure in listed.failures] == ["0", "1"]
        await self.finish(engine, (await self.claim(engine))[0], FAILURE)
