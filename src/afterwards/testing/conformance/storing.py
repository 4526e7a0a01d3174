"""Enqueue."""

import asyncio
import json
from datetime import timedelta

import pytest

from afterwards.core.errors import EngineError
from afterwards.core.task import Failure, FailureKind, State, Task
from afterwards.engine import Engine, Query
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.support import MICROSECOND, SOON, Conformance, ids

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
        clock.advance(SOON - MICROSECOND)
        assert await self.claim(engine) == []
        clock.advance(MICROSECOND)
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
