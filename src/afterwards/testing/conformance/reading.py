"""Find, stats and prune."""

from datetime import timedelta

from afterwards.core.settling import Cancelled
from afterwards.core.task import Failure, FailureKind, State
from afterwards.engine import Engine, Paused, Query
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.support import FAILURE, MICROSECOND, SNOOZE, SOON, Conformance, ids


class Reading(Conformance):
    """The queries of people."""

    async def test_everything_is_listed_newest_first(self, engine: Engine) -> None:
        tasks = [self.task() for _ in range(6)]
        stored = await engine.enqueue(tasks[:3]) + await engine.enqueue(tasks[3:])
        assert await engine.find(Query()) == stored[::-1]

    async def test_a_change_does_not_move_a_task(self, engine: Engine) -> None:
        tasks = [self.task() for _ in range(3)]
        await engine.enqueue(tasks)
        await engine.cancel([tasks[1].id], "no")
        assert ids(await engine.find(Query())) == ids(tasks[::-1])

    async def test_nothing_is_listed_where_nothing_is(self, engine: Engine) -> None:
        assert await engine.find(Query()) == []

    async def test_a_list_can_be_for_states_names_and_queues(self, engine: Engine) -> None:
        greet, thank, mail = self.task(), self.task("thank"), self.task(queue="mail")
        await engine.enqueue([greet, thank, mail])
        await engine.cancel([thank.id, mail.id], "no")
        cancelled, default = frozenset({State.CANCELLED}), frozenset({"default"})
        assert ids(await engine.find(Query(states=cancelled))) == ids([mail, thank])
        assert ids(await engine.find(Query(states=frozenset({State.QUEUED, State.CANCELLED})))) == ids(
            [mail, thank, greet]
        )
        assert ids(await engine.find(Query(names=frozenset({"greet"})))) == ids([mail, greet])
        assert ids(await engine.find(Query(queues=default))) == ids([thank, greet])
        assert ids(await engine.find(Query(states=cancelled, queues=default))) == [thank.id]
        assert await engine.find(Query(names=frozenset({"part"}))) == []

    async def test_an_empty_choice_finds_nothing(self, engine: Engine) -> None:
        await engine.enqueue([self.task()])
        for query in (Query(states=frozenset()), Query(names=frozenset()), Query(queues=frozenset())):
            assert await engine.find(query) == []

    async def test_a_list_is_read_page_by_page(self, engine: Engine) -> None:
        tasks = [self.task("thank" if number % 3 == 0 else "greet") for number in range(9)]
        await engine.enqueue(tasks)
        expected = ids([task for task in reversed(tasks) if task.name == "greet"])
        query = Query(names=frozenset({"greet"}), limit=4)
        first = ids(await engine.find(query))
        second = ids(await engine.find(Query(names=query.names, limit=4, before=first[-1])))
        assert (first, second) == (expected[:4], expected[4:])
        assert await engine.find(Query(names=query.names, before=second[-1])) == []

    async def test_a_list_below_a_task_that_is_gone_is_empty(self, engine: Engine) -> None:
        await engine.enqueue([self.task()])
        assert await engine.find(Query(before=self.task().id)) == []

    async def test_a_list_below_the_id_of_a_call_that_another_task_answered_is_empty(self, engine: Engine) -> None:
        twin = self.task(unique_key="one")
        await engine.enqueue([self.task(), self.task(unique_key="one"), twin])
        assert await engine.find(Query(before=twin.id)) == []

    async def test_tasks_are_counted_by_queue_and_state(self, engine: Engine) -> None:
        running = await self.running(engine)
        await self.ended(engine)
        await self.ended(engine, FAILURE)
        await self.ended(engine, Cancelled("no"), queue="mail")
        await engine.enqueue([self.task(), self.task(), self.task(queue="mail")])
        await engine.enqueue([self.task(wait=SOON), self.task(after=running.id)])
        assert (await engine.stats()).counts == {
            ("default", State.RUNNING): 1,
            ("default", State.SUCCEEDED): 1,
            ("default", State.FAILED): 1,
            ("mail", State.CANCELLED): 1,
            ("default", State.QUEUED): 2,
            ("mail", State.QUEUED): 1,
            ("default", State.SCHEDULED): 1,
            ("default", State.WAITING): 1,
        }

    async def test_counts_go_down_again(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.ended(engine)
        clock.advance(task.retention)
        await engine.prune(limit=10)
        stats = await engine.stats()
        assert (stats.counts, stats.oldest) == ({}, None)

    async def test_the_longest_wait_in_a_queue_is_known(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task()])
        clock.advance(20)
        await engine.enqueue([self.task()])
        clock.advance(10)
        assert (await engine.stats()).oldest == timedelta(seconds=30)
        await self.claim(engine, limit=1)
        assert (await engine.stats()).oldest == timedelta(seconds=10)

    async def test_the_wait_of_a_delayed_task_counts_since_it_was_due(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task(wait=SOON)])
        clock.advance(SOON * 3)
        assert (await engine.stats()).oldest == SOON * 2
        await self.claim(engine, names=["other"])  # this also queues tasks that are due
        assert (await engine.stats()).oldest == SOON * 2

    async def test_the_wait_of_a_requeued_task_counts_since_then(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.ended(engine)
        clock.advance(SOON)
        await engine.requeue([task.id])
        clock.advance(SOON)
        assert (await engine.stats()).oldest == SOON

    async def test_the_wait_of_a_paused_task_counts(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task()])
        await engine.pause(Paused(queues=frozenset({"default"})))
        clock.advance(SOON)
        assert (await engine.stats()).oldest == SOON

    async def test_a_wait_is_never_negative(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task()])
        clock.advance(-SOON)
        assert (await engine.stats()).oldest == timedelta()

    async def test_nothing_waits_where_nothing_is_queued(self, engine: Engine, clock: FakeClock) -> None:
        await self.finish(engine, await self.running(engine), SNOOZE)
        await engine.enqueue([self.task(held=True)])
        clock.advance(1)
        assert (await engine.stats()).oldest is None


class Pruning(Conformance):
    """A record is kept for its retention, and not longer."""

    async def test_a_finished_task_is_deleted_when_its_retention_is_over(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        task = await self.ended(engine, retention=SOON)
        clock.advance(SOON - MICROSECOND)
        assert await engine.prune(limit=10) == 0
        clock.advance(MICROSECOND)
        assert await engine.prune(limit=10) == 1
        assert await engine.get([task.id]) == []
        assert await engine.find(Query()) == []

    async def test_retention_counts_from_the_end(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine, retention=SOON)
        clock.advance(SOON)
        await self.succeed(engine, task)
        assert await engine.prune(limit=10) == 0

    async def test_each_task_has_its_own_retention(self, engine: Engine, clock: FakeClock) -> None:
        short, long = await self.ended(engine, retention=SOON), await self.ended(engine, retention=SOON * 2)
        at_once = await self.ended(engine, retention=timedelta())
        clock.advance(SOON)
        assert await engine.prune(limit=10) == 2
        assert await engine.get(ids([short, long, at_once])) == [long]

    async def test_every_end_is_deleted(self, engine: Engine, clock: FakeClock) -> None:
        failure = Failure(attempt=1, at=START, worker="w", kind=FailureKind.RAISED)
        await self.ended(engine, FAILURE)
        await self.ended(engine, Cancelled("no"))
        await engine.enqueue([self.task(failure=failure)])
        clock.advance(timedelta(days=7))
        assert await engine.prune(limit=10) == 3

    async def test_what_has_not_finished_stays(self, engine: Engine, clock: FakeClock) -> None:
        running = await self.running(engine)
        await engine.enqueue([self.task(), self.task(wait=SOON), self.task(after=running.id)])
        clock.advance(timedelta(days=1000))
        assert await engine.prune(limit=10) == 0
        assert len(await engine.find(Query())) == 4

    async def test_a_requeued_task_stays(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.ended(engine)
        await engine.requeue([task.id])
        clock.advance(task.retention)
        assert await engine.prune(limit=10) == 0

    async def test_a_record_can_stay_for_ever(self, engine: Engine, clock: FakeClock) -> None:
        await self.ended(engine, retention=timedelta(days=365 * 10_000))  # past the end of the calendar
        clock.advance(timedelta(days=1000))
        assert await engine.prune(limit=10) == 0

    async def test_only_so_many_are_deleted_at_once(self, engine: Engine, clock: FakeClock) -> None:
        tasks = [await self.ended(engine) for _ in range(5)]
        clock.advance(tasks[0].retention)
        assert [await engine.prune(limit=2) for _ in range(4)] == [2, 2, 1, 0]

    async def test_the_failures_of_a_deleted_task_go_with_it(self, engine: Engine, clock: FakeClock) -> None:
        new = self.task()
        await engine.enqueue([new])
        [task] = await self.claim(engine)
        await self.finish(engine, task, FAILURE)
        clock.advance(new.retention)
        await engine.prune(limit=10)
        [again] = await engine.enqueue([new])
        assert (again.state, again.attempt, again.failures) == (State.QUEUED, 0, ())
