"""Enqueue with a claim."""

from datetime import timedelta
from typing import Any

import pytest

from afterwards.core.errors import QueueFull
from afterwards.core.lifecycle import HOLD
from afterwards.core.task import State
from afterwards.engine import Engine
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.support import LEASE, SOON, Conformance


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
