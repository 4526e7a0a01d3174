"""Limits of task functions, pauses, and queues that are full."""

import asyncio
from datetime import timedelta

import pytest

from afterwards.core.errors import QueueFull
from afterwards.core.limits import Limit, Rate
from afterwards.core.settling import Cancelled
from afterwards.core.task import State
from afterwards.engine import Engine, Paused, Query
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance.support import (
    FAILURE,
    LEASE,
    RELEASE,
    RETRY,
    SNOOZE,
    SOON,
    SUCCESS,
    Conformance,
    ids,
)

ONE = {"greet": Limit(max_concurrency=1)}
TWO = {"greet": Limit(max_concurrency=2)}
THREE_SOON = {"greet": Limit(rate=Rate(3, SOON))}


class Limiting(Conformance):
    """A limit holds for all workers together, and is applied when tasks are claimed."""

    async def test_no_more_run_at_once_than_allowed(self, engine: Engine) -> None:
        tasks = [self.task() for _ in range(5)]
        await engine.enqueue(tasks)
        assert ids(await self.claim(engine, limits=TWO)) == ids(tasks[:2])
        assert await self.claim(engine, "another worker", limits=TWO) == []

    async def test_workers_at_the_same_time_pass_no_limit_together(self, engine: Engine) -> None:
        await engine.enqueue([self.task() for _ in range(20)])
        claims = [self.claim(engine, f"worker {number}", limit=3, limits=TWO) for number in range(10)]
        assert sum(map(len, await asyncio.gather(*claims))) == 2

    @pytest.mark.parametrize("outcome", [SUCCESS, FAILURE, RETRY, SNOOZE, RELEASE, Cancelled("no")])
    async def test_an_attempt_that_ends_makes_room(self, engine: Engine, outcome: object) -> None:
        first, second = self.task(priority=-1), self.task()
        await engine.enqueue([second, first])
        [running] = await self.claim(engine, limits=ONE, ids=[first.id])
        assert await self.claim(engine, limits=ONE) == []
        await self.finish(engine, running, outcome)  # type: ignore[arg-type]  # pytest's parameters have no types
        assert ids(await self.claim(engine, limits=ONE)) == [second.id]

    async def test_a_lost_lease_makes_room(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task(), self.task()])
        running = await self.claim(engine, limits=ONE)
        clock.advance(LEASE)
        assert await self.claim(engine, limits=ONE) == []
        await self.lose(engine, running)
        assert len(await self.claim(engine, limits=ONE)) == 1

    async def test_each_key_has_a_limit_of_its_own(self, engine: Engine) -> None:
        tasks = [self.task(limit_key=key) for key in ("ada", "ada", "eve", "ada", "eve", "bob")]
        await engine.enqueue(tasks)
        taken = await self.claim(engine, limits=ONE)
        assert ids(taken) == ids([tasks[0], tasks[2], tasks[5]])
        await self.succeed(engine, taken[0])
        assert ids(await self.claim(engine, limits=ONE)) == [tasks[1].id]

    async def test_a_flood_for_one_key_does_not_hold_up_the_others(self, engine: Engine) -> None:
        flood, other = [self.task(limit_key="ada") for _ in range(500)], self.task(limit_key="eve")
        await engine.enqueue([*flood, other])
        assert ids(await self.claim(engine, limits=ONE, limit=10)) == ids([flood[0], other])

    @pytest.mark.parametrize("keys", [1, 5, 30, 500])
    async def test_however_many_keys_there_are_the_best_come_first(self, engine: Engine, keys: int) -> None:
        tasks = [self.task(limit_key=str(number * 7 % keys), priority=number * 13 % 5) for number in range(500)]
        await engine.enqueue(tasks)
        best = sorted(tasks, key=lambda task: -task.priority)
        running: dict[str, str] = {}
        for _ in range(3):
            free = {task.limit_key: task for task in reversed(best) if task.limit_key not in running}
            expected = ids([task for task in best if free.get(task.limit_key) is task][:20])
            assert ids(await self.claim(engine, limits=ONE, limit=20)) == expected
            running |= {task.limit_key: task.id for task in tasks if task.id in expected}

    async def test_tasks_in_several_queues_count_together(self, engine: Engine) -> None:
        await engine.enqueue([self.task(queue=queue) for queue in ("default", "mail", "reports")])
        assert len(await self.claim(engine, limits=TWO)) == 2

    async def test_another_function_s_limit_is_none_of_theirs(self, engine: Engine) -> None:
        tasks = [self.task("thank"), self.task(), self.task("thank"), self.task()]
        await engine.enqueue(tasks)
        assert ids(await self.claim(engine, names=["greet", "thank"], limits=ONE)) == ids(tasks[:3])

    async def test_the_best_of_those_that_are_limited_comes_first(self, engine: Engine) -> None:
        low, high = self.task(limit_key="ada"), self.task(limit_key="ada", priority=5)
        await engine.enqueue([low, high])
        assert ids(await self.claim(engine, limits=ONE)) == [high.id]

    async def test_what_was_stored_before_there_was_a_limit_counts_too(self, engine: Engine) -> None:
        await engine.enqueue([self.task(limit_key=""), self.task(limit_key="*"), self.task(limit_key="")])
        assert len(await self.claim(engine, limits=TWO)) == 2

    async def test_a_function_s_tasks_count_together_under_all_its_names(self, engine: Engine) -> None:
        limit = Limit(max_concurrency=1, rate=Rate(2, SOON), counts_as="greet")
        names, both = ["greet", "salute"], {"greet": limit, "salute": limit}
        await engine.enqueue([self.task(name) for name in ("greet", "salute", "greet", "salute")])
        for _ in range(2):
            taken = await self.claim(engine, names=names, limits=both)
            assert len(taken) == 1
            await self.succeed(engine, *taken)
        assert await self.claim(engine, names=names, limits=both) == []

    async def test_certain_tasks_pass_no_limit_either(self, engine: Engine) -> None:
        tasks = [self.task() for _ in range(3)]
        await engine.enqueue(tasks)
        assert ids(await self.claim(engine, limits=ONE, ids=ids(tasks))) == [tasks[0].id]
        assert await self.claim(engine, limits=ONE, ids=ids(tasks)) == []

    async def test_no_more_start_within_a_span_than_its_rate(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task() for _ in range(8)])
        await self.succeed(engine, *await self.claim(engine, limits=THREE_SOON, limit=1))
        clock.advance(4)
        await self.succeed(engine, *await self.claim(engine, limits=THREE_SOON, limit=100))
        assert await self.counts_after(engine, clock, (0, 5, 0.9, 0.1, 3.9, 0.1)) == [0, 0, 0, 1, 0, 2]

    async def test_each_key_has_a_rate_of_its_own(self, engine: Engine) -> None:
        await engine.enqueue([self.task(limit_key=key) for key in ("ada",) * 5 + ("eve",) * 5])
        assert len(await self.claim(engine, limits=THREE_SOON)) == 6

    async def test_a_rate_counts_attempts_also_of_tasks_that_are_gone(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task(retention=SOON / 10) for _ in range(4)])
        await self.succeed(engine, *await self.claim(engine, limits=THREE_SOON))
        clock.advance(2)
        assert await engine.prune(limit=10) == 3
        assert await self.claim(engine, limits=THREE_SOON) == []
        clock.advance(SOON)
        await engine.prune(limit=10)
        assert len(await self.claim(engine, limits=THREE_SOON)) == 1

    async def test_nothing_limited_is_leased_as_it_is_stored(self, engine: Engine) -> None:
        claim = self.claim_for(names=["greet", "thank"], limits=ONE)
        stored = await engine.enqueue([self.task(), self.task("thank")], claim=claim)
        assert [task.state for task in stored] == [State.QUEUED, State.RUNNING]

    async def test_what_waits_for_its_limit_keeps_no_other_from_being_leased(self, engine: Engine) -> None:
        await engine.enqueue([self.task(), self.task()])
        await self.claim(engine, limits=ONE)
        claim = self.claim_for(names=["greet", "thank"], limits=ONE)
        [stored] = await engine.enqueue([self.task("thank")], claim=claim)
        assert stored.state is State.RUNNING

    async def test_a_worker_waits_no_longer_than_until_a_rate_has_room(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task() for _ in range(4)])
        await self.claim(engine, limits=THREE_SOON)
        await self.claim(engine, limits=THREE_SOON)
        clock.advance(SOON)
        async with asyncio.timeout(5):
            await engine.wait(LEASE)
        assert len(await self.claim(engine, limits=THREE_SOON)) == 1

    @pytest.mark.parametrize("outcome", [SUCCESS, FAILURE])
    async def test_who_waits_is_told_that_a_limit_has_room(self, engine: Engine, outcome: object) -> None:
        await engine.enqueue([self.task(limit_key="ada") for _ in range(2)])
        [running] = await self.claim(engine, limits=ONE)
        assert await self.claim(engine, limits=ONE) == []
        await engine.wait(timedelta(seconds=1))  # it takes the hints of earlier changes
        waiting = asyncio.create_task(engine.wait(LEASE))
        await self.finish(engine, running, outcome)  # type: ignore[arg-type]  # pytest's parameters have no types
        async with asyncio.timeout(5):
            await waiting

    async def counts_after(self, engine: Engine, clock: FakeClock, pauses: tuple[float, ...]) -> list[int]:
        """Return how many tasks start after each of these seconds."""
        counts = []
        for pause in pauses:
            clock.advance(pause)
            taken = await self.claim(engine, limits=THREE_SOON)
            await self.succeed(engine, *taken)
            counts.append(len(taken))
        return counts


class Pausing(Conformance):
    """Paused tasks do not start, and running tasks go on."""

    async def test_nothing_of_a_paused_queue_is_claimed(self, engine: Engine) -> None:
        tasks = [self.task(queue="mail"), self.task()]
        await engine.enqueue(tasks)
        await engine.pause(Paused(queues=frozenset({"mail"})))
        assert ids(await self.claim(engine)) == [tasks[1].id]
        assert await self.claim(engine, ids=ids(tasks)) == []
        await engine.resume(Paused(queues=frozenset({"mail"})))
        assert ids(await self.claim(engine)) == [tasks[0].id]

    async def test_nothing_of_a_paused_function_is_claimed(self, engine: Engine) -> None:
        tasks = [self.task(), self.task("thank")]
        await engine.enqueue(tasks)
        await engine.pause(Paused(names=frozenset({"greet"})))
        assert ids(await self.claim(engine, names=["greet", "thank"])) == [tasks[1].id]
        await engine.resume(Paused(names=frozenset({"greet"})))
        assert ids(await self.claim(engine, names=["greet", "thank"])) == [tasks[0].id]

    async def test_what_is_paused_can_be_asked_for(self, engine: Engine) -> None:
        assert await engine.paused() == Paused()
        await engine.pause(Paused(queues=frozenset({"mail", "reports"})))
        await engine.pause(Paused(queues=frozenset({"mail"}), names=frozenset({"greet"})))
        assert await engine.paused() == Paused(queues=frozenset({"mail", "reports"}), names=frozenset({"greet"}))
        await engine.resume(Paused(queues=frozenset({"mail", "never paused"})))
        assert await engine.paused() == Paused(queues=frozenset({"reports"}), names=frozenset({"greet"}))

    async def test_what_runs_goes_on(self, engine: Engine) -> None:
        task = await self.running(engine)
        await engine.pause(Paused(names=frozenset({"greet"})))
        await self.succeed(engine, task)

    async def test_nothing_paused_is_leased_as_it_is_stored(self, engine: Engine) -> None:
        await engine.pause(Paused(queues=frozenset({"mail"})))
        stored = await engine.enqueue([self.task(queue="mail"), self.task()], claim=self.claim_for())
        assert [task.state for task in stored] == [State.QUEUED, State.RUNNING]

    async def test_what_is_paused_keeps_no_other_from_being_leased(self, engine: Engine) -> None:
        await engine.pause(Paused(queues=frozenset({"mail"})))
        await engine.enqueue([self.task(queue="mail")])
        [stored] = await engine.enqueue([self.task()], claim=self.claim_for())
        assert stored.state is State.RUNNING

    async def test_who_waits_is_told_that_something_is_resumed(self, engine: Engine) -> None:
        await engine.pause(Paused(names=frozenset({"greet"})))
        await engine.enqueue([self.task()])
        assert await self.claim(engine) == []
        waiting = asyncio.create_task(engine.wait(LEASE))
        await engine.resume(Paused(names=frozenset({"greet"})))
        async with asyncio.timeout(5):
            await waiting

    async def test_a_paused_task_that_has_a_limit_takes_no_room(self, engine: Engine) -> None:
        await engine.pause(Paused(queues=frozenset({"mail"})))
        paused, other = self.task(queue="mail", priority=9), self.task()
        await engine.enqueue([paused, other])
        assert ids(await self.claim(engine, limits=ONE)) == [other.id]


class Filling(Conformance):
    """A queue accepts no more tasks than may wait in it."""

    async def test_past_its_limit_nothing_of_the_call_is_stored(self, engine: Engine) -> None:
        await engine.enqueue([self.task(max_queued=2)])
        tasks = [self.task(queue="mail"), self.task(max_queued=2), self.task(max_queued=2)]
        with pytest.raises(QueueFull, match="default") as full:
            await engine.enqueue(tasks)
        assert (full.value.queue, full.value.limit) == ("default", 2)
        assert await engine.get(ids(tasks)) == []
        assert len(await engine.enqueue([self.task(max_queued=2)])) == 1

    async def test_a_queue_tells_before_whether_it_would_refuse(self, engine: Engine) -> None:
        twin = self.task(max_queued=1, unique_key="only/one")
        await engine.enqueue([twin])
        await engine.refuse_full([self.task(max_queued=3), self.task(), self.task(max_queued=1, queue="mail")])
        await engine.refuse_full([self.task(max_queued=1, unique_key="only/one"), twin])
        with pytest.raises(QueueFull, match="default") as full:
            await engine.refuse_full([self.task(queue="mail"), self.task(max_queued=1)])
        assert (full.value.queue, full.value.limit) == ("default", 1)
        assert ids(await engine.find(Query())) == [twin.id]

    async def test_what_waits_in_any_way_counts_and_what_runs_or_ended_does_not(self, engine: Engine) -> None:
        running = await self.running(engine)
        await self.ended(engine)
        await engine.enqueue([self.task(after=running.id), self.task(wait=SOON), self.task(held=True), self.task()])
        with pytest.raises(QueueFull):
            await engine.enqueue([self.task(max_queued=4)])
        assert len(await engine.enqueue([self.task(max_queued=5)])) == 1

    async def test_only_those_that_say_so_are_refused(self, engine: Engine) -> None:
        await engine.enqueue([self.task(max_queued=1)])
        assert len(await engine.enqueue([self.task(), self.task()])) == 2

    async def test_retries_and_requeues_are_taken(self, engine: Engine, clock: FakeClock) -> None:
        failed, retried = await self.ended(engine, FAILURE, max_queued=1), await self.running(engine, max_queued=1)
        await engine.enqueue([self.task(max_queued=1)])
        await self.finish(engine, retried, RETRY)
        assert len(await engine.requeue([failed.id])) == 1
        clock.advance(SOON)
        assert len(await self.claim(engine)) == 3

    async def test_a_repeated_call_is_not_refused(self, engine: Engine) -> None:
        new = self.task(max_queued=1)
        [stored] = await engine.enqueue([new])
        assert await engine.enqueue([new]) == [stored]

    async def test_calls_at_the_same_time_do_not_fill_it_together(self, engine: Engine) -> None:
        calls = [engine.enqueue([self.task(max_queued=5), self.task(max_queued=5)]) for _ in range(10)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(not isinstance(answer, QueueFull) for answer in answers) == 2

    async def test_another_queue_is_not_full(self, engine: Engine) -> None:
        await engine.enqueue([self.task(max_queued=1)])
        assert len(await engine.enqueue([self.task(queue="mail", max_queued=1)])) == 1
