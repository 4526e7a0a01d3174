"""Enqueue, publish, and enqueue with a claim."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from afterwards.core.errors import EngineError, QueueFull
from afterwards.core.lifecycle import HOLD
from afterwards.core.task import Failure, FailureKind, Lease, State, Task
from afterwards.engine import Engine, Query
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.support import LEASE, MOMENT, RETRY, SOON, Conformance, ids

STORE_ERRORS = (OverflowError, ValueError, EngineError)


class Storing(Conformance):
    """A stored task stays stored, and is stored once."""

    async def test_a_task_is_kept_as_it_was_given(self, engine: Engine) -> None:
        new = self.task(
            arguments='{"who": "Zoë \\u0000 🦉"}',
            queue="mail",
            priority=-7,
            overrides='{"timeout": 3}',
            retention=timedelta(hours=1, microseconds=1),
            origin="POST /signup/{email}",
        )
        expected = Task(
            id=new.id,
            name="greet",
            arguments='{"who": "Zoë \\u0000 🦉"}',
            created_at=START,
            state=State.QUEUED,
            queue="mail",
            priority=-7,
            overrides='{"timeout": 3}',
            retention=timedelta(hours=1, microseconds=1),
            origin="POST /signup/{email}",
        )
        assert await engine.enqueue([new]) == [expected]
        assert await engine.get([new.id]) == [expected]

    async def test_text_of_any_kind_survives(self, engine: Engine) -> None:
        text = "'; -- {}[] %s $1 :a ? \\ \t\n \x00 \x7f é 漢 🦉"
        new = self.task(arguments=json.dumps({"text": text}), origin="'; -- %s $1 :a ? \\ é 漢 🦉")
        await engine.enqueue([new])
        stored = await self.one(engine, new)
        assert (stored.arguments, stored.origin) == (new.arguments, new.origin)

    async def test_a_large_call_survives(self, engine: Engine) -> None:
        new = self.task(arguments='{"a": "' + "x" * 256 * 1024 + '"}')
        await engine.enqueue([new])
        assert (await self.one(engine, new)).arguments == new.arguments

    async def test_nothing_is_stored_when_nothing_is_given(self, engine: Engine) -> None:
        assert await engine.enqueue([]) == []

    async def test_a_second_enqueue_of_the_same_id_changes_nothing(self, engine: Engine, clock: FakeClock) -> None:
        new = self.task()
        [first] = await engine.enqueue([new])
        clock.advance(1)
        assert await engine.enqueue([new, self.task()]) == [first, await self.newest(engine)]

    async def test_a_repeated_enqueue_returns_the_task_as_it_stands(self, engine: Engine) -> None:
        new = self.task()
        await engine.enqueue([new])
        [running] = await self.claim(engine)
        assert await engine.enqueue([new]) == [running]

    async def test_an_id_given_twice_in_one_call_is_stored_once(self, engine: Engine) -> None:
        new = self.task()
        first, second = await engine.enqueue([new, new])
        assert first == second
        assert len(await engine.find(Query())) == 1

    @pytest.mark.parametrize("position", [0, 1, 2])
    async def test_all_are_stored_or_none(self, engine: Engine, position: int) -> None:
        tasks = [self.task(), self.task()]
        tasks.insert(position, self.task(wait=timedelta.max))  # ends after the last day that a clock can show
        with pytest.raises(STORE_ERRORS):
            await engine.enqueue(tasks)
        assert await engine.find(Query()) == []

    async def test_one_sender_s_bad_task_does_not_hurt_another_sender(self, engine: Engine) -> None:
        good, bad = [self.task() for _ in range(5)], self.task(wait=timedelta.max)
        calls = [engine.enqueue([new]) for new in (*good[:2], bad, *good[2:])]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers if isinstance(answer, BaseException)] == [type(answers[2])]
        assert len(await engine.get(ids([*good, bad]))) == 5

    async def test_senders_at_the_same_time_are_all_served(self, engine: Engine) -> None:
        batches = [[self.task() for _ in range(3)] for _ in range(20)]
        answers = await asyncio.gather(*(engine.enqueue(batch) for batch in batches))
        assert [ids(answer) for answer in answers] == [ids(batch) for batch in batches]
        assert len(await self.claim(engine)) == 60

    async def test_get_keeps_the_order_asked_for_and_leaves_out_the_unknown(self, engine: Engine) -> None:
        first, second = self.task(), self.task()
        await engine.enqueue([first, second])
        assert ids(await engine.get([second.id, self.task().id, first.id])) == [second.id, first.id]

    async def test_a_delayed_task_is_scheduled_until_it_is_due(self, engine: Engine, clock: FakeClock) -> None:
        [task] = await engine.enqueue([self.task(wait=SOON)])
        assert (task.state, task.run_at) == (State.SCHEDULED, clock() + SOON)
        clock.advance(SOON - MOMENT)
        assert await self.claim(engine) == []
        clock.advance(MOMENT)
        assert ids(await self.claim(engine)) == [task.id]

    async def test_a_task_for_an_instant_is_scheduled_until_then(self, engine: Engine, clock: FakeClock) -> None:
        [task] = await engine.enqueue([self.task(run_at=clock() + SOON)])
        assert (task.state, task.run_at) == (State.SCHEDULED, clock() + SOON)
        clock.advance(SOON)
        assert ids(await self.claim(engine)) == [task.id]

    async def test_an_instant_that_has_passed_means_now(self, engine: Engine, clock: FakeClock) -> None:
        [task] = await engine.enqueue([self.task(run_at=clock() - SOON)])
        assert task.state is State.QUEUED

    async def test_a_plain_function_s_failure_is_recorded_and_never_run(self, engine: Engine, clock: FakeClock) -> None:
        failure = Failure(
            attempt=1,
            at=clock(),
            worker="w",
            kind=FailureKind.RAISED,
            type="ValueError",
            message="no",
            traceback="Traceback …",
        )
        new = self.task(failure=failure)
        [task] = await engine.enqueue([new], claim=self.claim_for())
        assert (task.state, task.plain, task.failures) == (State.FAILED, True, (failure,))
        assert (task.attempt, task.failed, task.finished_at, task.run_at) == (1, 1, clock(), None)
        assert await self.one(engine, new) == task
        assert await self.claim(engine) == []

    async def newest(self, engine: Engine) -> Task:
        [task] = await engine.find(Query(limit=1))
        return task


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
        clock.advance(HOLD - MOMENT)
        assert await self.claim(engine) == []
        clock.advance(MOMENT)
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
        clock.advance(HOLD - MOMENT)
        assert await self.claim(engine) == []
        clock.advance(MOMENT)
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


class StoringLeased(Conformance):
    """Enqueue with a claim: tasks are stored as running, leased to the process that stores them."""

    async def test_tasks_are_leased_at_once(self, engine: Engine, clock: FakeClock) -> None:
        [task] = await engine.enqueue([self.task()], claim=self.claim_for("me"))
        assert (task.state, task.attempt, task.worker) == (State.RUNNING, 1, "me")
        assert (task.lease_until, task.started_at, task.run_at) == (clock() + LEASE, clock(), None)
        assert await self.one(engine, task) == task
        assert await self.claim(engine) == []

    @pytest.mark.parametrize(
        "fields",
        [
            {
                "queue": "mail",
                "priority": 7,
                "origin": "POST /",
                "retention": timedelta(days=1),
                "arguments": '{"a": 1}',
            },
            {"overrides": '{"retries": 3}', "context": '{"a": "b"}', "expires": SOON},
            {"limit_key": "ada", "idempotency_key": "i", "unique_key": "u", "max_queued": 5},
            {"wait": SOON},
            {"run_at": START + SOON},
            {"rerun_after_crash": False},
        ],
        ids=lambda fields: "-".join(fields),
    )
    async def test_what_is_told_is_what_is_stored(self, engine: Engine, fields: dict[str, Any]) -> None:
        [task] = await engine.enqueue([self.task(**fields)], claim=self.claim_for())
        assert await self.one(engine, task) == task

    async def test_a_rule_answers_before_anything_is_leased(self, engine: Engine) -> None:
        [task] = await engine.enqueue([self.task(unique_key="k")], claim=self.claim_for("me"))
        assert await engine.enqueue([self.task(unique_key="k")], claim=self.claim_for("you")) == [task]

    async def test_a_full_queue_takes_nothing_that_could_be_leased_either(self, engine: Engine) -> None:
        await engine.enqueue([self.task(wait=SOON)])
        with pytest.raises(QueueFull):
            await engine.enqueue([self.task(max_queued=1)], claim=self.claim_for())

    async def test_a_held_task_is_leased_too(self, engine: Engine) -> None:
        [task] = await engine.enqueue([self.task(held=True)], claim=self.claim_for())
        assert task.state is State.RUNNING

    @pytest.mark.parametrize("held", [False, True])
    async def test_a_delayed_task_is_not_leased_before_its_time(self, engine: Engine, held: bool) -> None:
        delayed, planned = self.task(wait=SOON, held=held), self.task(run_at=START + HOLD * 2, held=held)
        stored = await engine.enqueue([delayed, planned], claim=self.claim_for())
        assert [(task.state, task.attempt) for task in stored] == [(State.SCHEDULED, 0)] * 2
        assert [task.run_at for task in stored] == [START + (HOLD if held else SOON), START + HOLD * 2]

    async def test_only_as_many_are_leased_as_there_are_slots(self, engine: Engine) -> None:
        stored = await engine.enqueue([self.task() for _ in range(3)], claim=self.claim_for(limit=2))
        assert [task.state for task in stored] == [State.RUNNING, State.RUNNING, State.QUEUED]

    async def test_a_held_task_beyond_the_slots_stays_held(self, engine: Engine) -> None:
        stored = await engine.enqueue([self.task(held=True) for _ in range(2)], claim=self.claim_for(limit=1))
        assert [task.state for task in stored] == [State.RUNNING, State.SCHEDULED]

    async def test_what_the_worker_does_not_serve_is_not_leased(self, engine: Engine) -> None:
        tasks = [self.task("other"), self.task(queue="mail"), self.task()]
        stored = await engine.enqueue(tasks, claim=self.claim_for(queues={"default"}))
        assert [task.state for task in stored] == [State.QUEUED, State.QUEUED, State.RUNNING]

    async def test_nothing_is_leased_while_something_older_is_queued(self, engine: Engine) -> None:
        await engine.enqueue([self.task()])
        [task] = await engine.enqueue([self.task()], claim=self.claim_for())
        assert task.state is State.QUEUED

    async def test_nothing_is_leased_while_something_older_is_due(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task(wait=SOON)])
        clock.advance(SOON)
        [task] = await engine.enqueue([self.task()], claim=self.claim_for())
        assert task.state is State.QUEUED

    async def test_nothing_is_leased_while_something_older_has_expired_unnoticed(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        await engine.enqueue([self.task(expires=SOON)])
        clock.advance(SOON)
        [task] = await engine.enqueue([self.task()], claim=self.claim_for())
        assert task.state is State.QUEUED

    async def test_older_tasks_for_other_workers_or_for_later_do_not_matter(self, engine: Engine) -> None:
        await engine.enqueue([self.task("other"), self.task(queue="mail"), self.task(wait=SOON), self.task(held=True)])
        [task] = await engine.enqueue([self.task()], claim=self.claim_for(queues={"default"}))
        assert task.state is State.RUNNING

    async def test_older_tasks_that_run_do_not_matter(self, engine: Engine) -> None:
        await self.running(engine)
        [task] = await engine.enqueue([self.task()], claim=self.claim_for())
        assert task.state is State.RUNNING

    async def test_the_tasks_behind_wait(self, engine: Engine) -> None:
        first = self.task()
        second = self.task(after=first.id)
        stored = await engine.enqueue([first, second], claim=self.claim_for())
        assert [task.state for task in stored] == [State.RUNNING, State.WAITING]

    async def test_a_task_behind_one_that_has_succeeded_is_leased(self, engine: Engine) -> None:
        first = await self.ended(engine)
        [task] = await engine.enqueue([self.task(after=first.id)], claim=self.claim_for())
        assert task.state is State.RUNNING

    async def test_a_repeated_enqueue_leases_nothing_again(self, engine: Engine) -> None:
        new = self.task()
        [task] = await engine.enqueue([new], claim=self.claim_for("me"))
        assert await engine.enqueue([new], claim=self.claim_for("you")) == [task]

    async def test_a_leased_task_is_lost_like_any_other(self, engine: Engine, clock: FakeClock) -> None:
        [task] = await engine.enqueue([self.task(held=True)], claim=self.claim_for())
        clock.advance(LEASE)
        assert await engine.expired(limit=10) == [task]
