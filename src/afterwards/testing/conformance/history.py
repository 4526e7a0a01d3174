"""The traces of attempts: their counts by time, and the lines that they logged."""

from dataclasses import replace
from datetime import timedelta

import pytest

from afterwards.core.settling import Cancelled, Outcome, Raised, Released, SetAside, Settled, Snoozed
from afterwards.core.tallies import KEPT, Ends, Tally, step_of
from afterwards.core.task import FIRST_FAILURES, LAST_FAILURES, LOGGED_ATTEMPTS, FailureKind, LogLine, State, Task
from afterwards.engine import Engine, Query
from afterwards.testing.clock import START, FakeClock
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

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


class Tallying(Conformance):
    """The counts of ended attempts."""

    async def test_ends_are_counted_by_kind(self, engine: Engine) -> None:
        for outcome in (SUCCESS, SUCCESS, FAILURE, RETRY, SNOOZE, RELEASE, Cancelled("no")):
            await self.ended(engine, outcome)
        assert await engine.tallies(HOUR, HOUR) == [Tally(step_of(START, HOUR), Ends(2, 1, 1))]

    async def test_many_ends_of_one_call_are_counted(self, engine: Engine) -> None:
        await engine.enqueue([self.task() for _ in range(6)])
        tasks = await self.claim(engine)
        outcomes: list[Outcome] = [SUCCESS, SUCCESS, SUCCESS, FAILURE, FAILURE, RETRY]
        await engine.finish([self.settled(*pair) for pair in zip(tasks, outcomes, strict=True)])
        assert [tally.ends for tally in await engine.tallies(HOUR, HOUR)] == [Ends(3, 2, 1)]

    async def test_a_refused_end_is_not_counted(self, engine: Engine) -> None:
        task = await self.ended(engine)
        await engine.finish([self.settled(task, FAILURE)])
        assert [tally.ends for tally in await engine.tallies(HOUR, HOUR)] == [Ends(1, 0, 0)]

    async def test_a_lost_attempt_is_counted_by_what_becomes_of_its_task(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        tasks = [await self.running(engine), await self.running(engine, rerun_after_crash=False)]
        clock.advance(LEASE)
        await self.lose(engine, tasks)
        assert [tally.ends for tally in await engine.tallies(HOUR, HOUR)] == [Ends(0, 1, 1)]

    async def test_counts_are_by_steps_of_time(self, engine: Engine, clock: FakeClock) -> None:
        for _ in range(3):
            await self.ended(engine)
            clock.advance(MINUTE)
        await self.ended(engine, FAILURE)
        start = step_of(START)
        one = Ends(succeeded=1)
        assert await engine.tallies(HOUR, MINUTE) == [
            Tally(start, one),
            Tally(start + MINUTE, one),
            Tally(start + 2 * MINUTE, one),
            Tally(start + 3 * MINUTE, Ends(failed=1)),
        ]
        assert await engine.tallies(MINUTE, MINUTE) == [
            Tally(start + 2 * MINUTE, one),
            Tally(start + 3 * MINUTE, Ends(failed=1)),
        ]
        total = await engine.tallies(HOUR, timedelta(days=1))
        assert [tally.ends for tally in total] == [Ends(3, 1, 0)]

    async def test_counts_outlive_their_tasks_and_end_after_a_week(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.ended(engine)
        await engine.delete([task.id])
        clock.advance(KEPT - HOUR)
        await engine.prune(limit=10)
        assert [tally.ends for tally in await engine.tallies(KEPT, HOUR)] == [Ends(1, 0, 0)]
        clock.advance(HOUR * 2)
        await engine.prune(limit=10)
        assert await engine.tallies(KEPT * 2, HOUR) == []

    async def test_old_counts_keep_their_hour(self, engine: Engine, clock: FakeClock) -> None:
        for _ in range(4):
            await self.ended(engine)
            clock.advance(MINUTE * 20)
        before = await engine.tallies(HOUR * 24, HOUR)
        clock.advance(HOUR * 20)
        await engine.prune(limit=10)
        assert await engine.tallies(HOUR * 24, HOUR) == before


class Logging(Conformance):
    """The lines that attempts logged."""

    async def test_lines_are_kept_with_the_record(self, engine: Engine) -> None:
        task = await self.running(engine)
        lines = self.lines(task, "one", "two\nlines", "näh \x00 '")
        await engine.finish([self.logged(task, lines)])
        assert (await self.one(engine, task)).logs == lines
        [listed] = await engine.find(Query())
        assert listed.logs == ()

    async def test_lines_of_several_attempts_come_in_order(self, engine: Engine) -> None:
        task = await self.running(engine)
        first = self.lines(task, "b", "a")
        await engine.finish([replace(self.settled(task, SNOOZE), logs=first)])
        await engine.start_now([task.id])
        [again] = await self.claim(engine)
        assert again.logs == ()
        second = self.lines(again, "c")
        await engine.finish([self.logged(again, second)])
        assert (await self.one(engine, task)).logs == (*first, *second)

    async def test_the_lines_of_the_last_attempts_are_kept(self, engine: Engine) -> None:
        task = await self.running(engine)
        for _ in range(LOGGED_ATTEMPTS + 3):
            await engine.finish([replace(self.settled(task, SNOOZE), logs=self.lines(task, "x", "y"))])
            await engine.start_now([task.id])
            [task] = await self.claim(engine)
        logs = (await self.one(engine, task)).logs
        assert len(logs) == LOGGED_ATTEMPTS * 2
        assert logs[-1].attempt == task.attempt - 1

    async def test_lines_of_one_call_go_to_their_tasks(self, engine: Engine) -> None:
        await engine.enqueue([self.task() for _ in range(3)])
        first, second, third = await self.claim(engine)
        await engine.finish(
            [
                self.logged(first, self.lines(first, "of the first")),
                self.settled(second, SUCCESS),
                replace(self.settled(third, FAILURE), logs=self.lines(third, "of the third")),
            ]
        )
        found = await engine.get(ids([first, second, third]))
        assert [[line.message for line in task.logs] for task in found] == [["of the first"], [], ["of the third"]]

    async def test_lines_of_a_refused_end_are_not_kept(self, engine: Engine) -> None:
        task = await self.ended(engine)
        assert await engine.finish([self.logged(task, self.lines(task, "late"))]) == [task.lease]
        assert (await self.one(engine, task)).logs == ()

    async def test_lines_are_gone_with_their_task(self, engine: Engine) -> None:
        new = self.task()
        await engine.enqueue([new])
        [task] = await self.claim(engine)
        await engine.finish([self.logged(task, self.lines(task, "one"))])
        await engine.delete([task.id])
        await engine.enqueue([new])
        [again] = await self.claim(engine)
        assert (await self.one(engine, again)).logs == ()

    def lines(self, task: Task, *messages: str) -> tuple[LogLine, ...]:
        return tuple(
            LogLine(attempt=task.attempt, at=START, level="INFO", logger="shop", message=message)
            for message in messages
        )

    def logged(self, task: Task, lines: tuple[LogLine, ...]) -> Settled:
        return replace(self.settled(task, SUCCESS), logs=lines)


class ComingLate(Conformance):
    """Attempts that end after their lease was lost."""

    async def test_the_end_of_a_lost_attempt_is_recorded_once(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        clock.advance(LEASE)
        await self.lose(engine, [task])
        clock.advance(SOON)
        for _ in range(2):
            assert await self.finish(engine, task, SUCCESS) == [task.lease]
        stored = await self.one(engine, task)
        assert [failure.kind for failure in stored.failures] == [FailureKind.CRASHED, FailureKind.LATE]
        late = stored.failures[-1]
        assert (late.attempt, late.at, late.worker) == (task.attempt, START + LEASE + SOON, "worker")
        assert "succeeded" in late.message
        assert stored.state is State.QUEUED

    async def test_it_is_recorded_while_another_attempt_runs(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        clock.advance(LEASE)
        await self.lose(engine, [task])
        [again] = await self.claim(engine, worker="another")
        assert await self.finish(engine, task, FAILURE) == [task.lease]
        assert await self.finish(engine, again, SUCCESS) == []
        stored = await self.one(engine, task)
        assert stored.state is State.SUCCEEDED
        assert [failure.kind for failure in stored.failures] == [FailureKind.CRASHED, FailureKind.LATE]

    @pytest.mark.parametrize(
        "outcome",
        [Released("nobody waited for it", begun=False), Snoozed(timedelta(), called=False), SetAside("it misfits")],
    )
    async def test_a_lease_that_is_given_back_untried_is_not_late(
        self, engine: Engine, clock: FakeClock, outcome: Outcome
    ) -> None:
        task = await self.running(engine)
        clock.advance(LEASE)
        await self.lose(engine, [task])
        assert await self.finish(engine, task, outcome) == [task.lease]
        assert [failure.kind for failure in (await self.one(engine, task)).failures] == [FailureKind.CRASHED]

    async def test_a_repeated_crash_is_not_late(self, engine: Engine) -> None:
        crashed = Raised(error=ValueError("its process died"), kind=FailureKind.CRASHED)
        task = await self.ended(engine, crashed)
        assert await self.finish(engine, task, crashed) == [task.lease]
        assert [failure.kind for failure in (await self.one(engine, task)).failures] == [FailureKind.CRASHED]

    async def test_of_many_failures_the_first_and_the_last_are_kept_though_an_attempt_has_two(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        task = await self.running(engine, rerun_after_crash=False)
        attempts = (FIRST_FAILURES + LAST_FAILURES) // 2 + 2
        for _ in range(attempts):
            clock.advance(LEASE)
            await self.lose(engine, [task])
            assert await self.finish(engine, task, SUCCESS) == [task.lease]
            await engine.requeue([task.id])
            [task] = await self.claim(engine, suspects=1)
        stored = await self.one(engine, task)
        assert len(stored.failures) == FIRST_FAILURES + LAST_FAILURES
        assert len(stored.failures) + stored.failures_left_out == 2 * attempts

    async def test_a_repeated_end_is_not_late(self, engine: Engine) -> None:
        task = await self.ended(engine, FAILURE)
        assert await self.finish(engine, task, FAILURE) == [task.lease]
        assert [failure.kind for failure in (await self.one(engine, task)).failures] == [FailureKind.RAISED]
