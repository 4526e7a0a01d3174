"""Acts by hand: searches and counts, tasks started before their time, and tasks deleted."""

from datetime import timedelta

import pytest

from afterwards.core.settling import Cancelled, Raised
from afterwards.core.task import State
from afterwards.engine import Chunk, Engine, Query
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.support import FAILURE, RETRY, SNOOZE, SOON, Conformance, ids


class Searching(Conformance):
    """Filters of lists, and counts of what matches."""

    # None of these can be a part of an id by chance, as "ada" can.
    @pytest.mark.parametrize("text", ["greet", "GREET", "tom", "/signup", "né", "%", "_", "'", "\\", "Boom", "boom: x"])
    async def test_a_text_is_found_where_it_is(self, engine: Engine, text: str) -> None:
        place = {"arguments": '{"name":"Tom né % _ \' \\\\"}', "origin": "POST /signup"}
        if text.lower().startswith("boom"):
            found = await self.ended(engine, Raised(error=Boom("X")), **place)
        else:
            found = await self.running(engine, **place)
        await engine.enqueue([self.task("other", arguments="{}")])
        assert ids(await engine.find(Query(text=text))) == [found.id]
        assert await engine.count(Query(text=text)) == 1

    async def test_a_text_is_found_in_an_id(self, engine: Engine) -> None:
        one, other = self.task(), self.task()
        await engine.enqueue([one, other])
        assert ids(await engine.find(Query(text=one.id))) == [one.id]
        assert ids(await engine.find(Query(text=one.id[20:].upper()))) == [one.id]

    async def test_a_text_that_is_nowhere_finds_nothing(self, engine: Engine) -> None:
        await engine.enqueue([self.task(arguments='{"name":"É"}')])
        assert await engine.find(Query(text="nowhere")) == []
        assert await engine.find(Query(text="é")) == []  # case is ignored for ASCII letters only

    async def test_arguments_and_failures_of_a_task_with_secrets_are_not_searched(self, engine: Engine) -> None:
        task = await self.ended(
            engine, Raised(error=Boom("hunter2")), arguments='{"password":"hunter2"}', secrets=("password",)
        )
        assert task.secrets == ("password",)
        assert await engine.find(Query(text="hunter2")) == []
        assert ids(await engine.find(Query(text="greet"))) == [task.id]

    async def test_a_list_begins_at_an_instant(self, engine: Engine, clock: FakeClock) -> None:
        early = await self.running(engine)
        old = await self.ended(engine)
        clock.advance(SOON)
        await self.finish(engine, early, FAILURE)
        [new] = await engine.enqueue([self.task()])
        found = await engine.find(Query(since=START + SOON))
        assert ids(found) == [new.id, early.id]  # one was added then, the other finished then
        assert ids(await engine.find(Query(since=START))) == ids([new, old, early])
        assert await engine.find(Query(since=START + SOON * 2)) == []

    async def test_the_tasks_directly_behind_one_are_listed(self, engine: Engine) -> None:
        first = self.task()
        second = self.task(after=first.id)
        third = self.task(after=second.id)
        await engine.enqueue([first, second, third, self.task()])
        assert ids(await engine.find(Query(behind=first.id))) == [second.id]
        assert await engine.find(Query(behind=third.id)) == []

    async def test_matching_tasks_are_counted_up_to_the_limit(self, engine: Engine) -> None:
        tasks = [self.task(queue="mail" if number % 2 else "default") for number in range(10)]
        await engine.enqueue(tasks)
        await engine.cancel(ids(tasks[:4]), "no")
        assert await engine.count(Query()) == 10
        assert await engine.count(Query(limit=3)) == 3
        assert await engine.count(Query(states=frozenset({State.CANCELLED}))) == 4
        assert await engine.count(Query(states=frozenset({State.CANCELLED}), queues=frozenset({"mail"}))) == 2
        assert await engine.count(Query(before=tasks[2].id)) == 2
        assert await engine.count(Query(names=frozenset())) == 0


class StartingNow(Conformance):
    """Scheduled tasks that somebody starts before their time."""

    @pytest.mark.parametrize("outcome", [RETRY, SNOOZE])
    async def test_a_task_that_waits_for_another_attempt_starts_at_once(self, engine: Engine, outcome: object) -> None:
        task = await self.running(engine)
        await self.finish(engine, task, outcome)  # type: ignore[arg-type]
        assert ids(await engine.start_now([task.id])) == [task.id]
        assert (await self.one(engine, task)).state is State.QUEUED
        [again] = await self.claim(engine)
        assert (again.id, again.attempt) == (task.id, 2)

    async def test_a_delayed_task_starts_at_once(self, engine: Engine, clock: FakeClock) -> None:
        waits, fixed = self.task(wait=SOON), self.task(run_at=START + timedelta(days=1))
        await engine.enqueue([waits, fixed])
        started = await engine.start_now([fixed.id, waits.id])
        assert [(task.id, task.state, task.run_at) for task in started] == [
            (waits.id, State.QUEUED, None),
            (fixed.id, State.QUEUED, None),
        ]
        clock.advance(SOON)
        assert (await engine.stats()).oldest == SOON
        assert ids(await self.claim(engine)) == ids([waits, fixed])

    async def test_other_tasks_stay_as_they_are(self, engine: Engine) -> None:
        queued, running = self.task(), await self.running(engine)
        await engine.enqueue([queued, waiting := self.task(after=running.id)])
        ended = await self.ended(engine, Cancelled("no"))
        some = [queued.id, running.id, waiting.id, ended.id]
        before = await engine.get(some)
        assert await engine.start_now([*some, self.task().id, "nothing"]) == []
        assert await engine.get(some) == before

    async def test_very_many_start_at_once(self, engine: Engine) -> None:
        tasks = [self.task(wait=SOON) for _ in range(1500)]
        await engine.enqueue(tasks)
        assert len(await engine.start_now(ids(tasks))) == 1500
        assert (await engine.stats()).counts == {("default", State.QUEUED): 1500}


class Deleting(Conformance):
    """Finished tasks that somebody deletes."""

    async def test_finished_tasks_are_deleted_and_others_stay(self, engine: Engine) -> None:
        failed, succeeded = await self.ended(engine, FAILURE), await self.ended(engine)
        running = await self.running(engine)
        [queued] = await engine.enqueue([self.task()])
        deleted = await engine.delete(ids([succeeded, running, queued, failed]))
        assert sorted(deleted) == sorted(ids([succeeded, failed]))
        assert ids(await engine.find(Query())) == ids([queued, running])
        assert await engine.delete(ids([succeeded, failed])) == []

    async def test_everything_of_a_deleted_task_is_gone(self, engine: Engine) -> None:
        new = self.task(unique_key="one", idempotency_key="once")
        file = self.task().id
        await engine.write_chunks([Chunk(file=file, task=new.id, number=0, content=b"x")])
        await engine.enqueue([new])
        [task] = await self.claim(engine)
        await self.finish(engine, task, FAILURE)
        await engine.enqueue([twin := self.task(idempotency_key="once")])
        assert await engine.delete([twin.id]) == [new.id]  # the id of a call that another task answered
        assert await engine.read_chunks(file, start=0, limit=1) == []
        assert await engine.get([new.id, twin.id]) == []
        [again] = await engine.enqueue([self.task(idempotency_key="once")])
        assert again.id != new.id
        assert again.failures == ()

    async def test_very_many_are_deleted(self, engine: Engine) -> None:
        tasks = [self.task() for _ in range(1500)]
        await engine.enqueue(tasks)
        await engine.cancel(ids(tasks), "no")
        assert len(await engine.delete([*ids(tasks), "nothing"])) == 1500
        assert await engine.find(Query()) == []


class Boom(Exception):
    """An error to look for."""
