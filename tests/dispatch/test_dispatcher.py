"""The dispatcher: sends what may start, once, and keeps the store in order."""

from dataclasses import replace
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest

from afterwards import State, task
from afterwards.core.errors import EngineUnavailable
from afterwards.core.lifecycle import HOLD
from afterwards.core.retry import Retry
from afterwards.core.routing import LiveWorker
from afterwards.core.schedule import Every, Missed
from afterwards.core.settling import SetAside, settle
from afterwards.core.task import Lease, NewTask, Task
from afterwards.engine import Claim
from afterwards.engines.memory import MemoryEngine
from afterwards.execution.health import Health
from afterwards.testing.clock import FakeClock
from afterwards.worker.scheduler import Scheduled
from dispatch.pool import SECOND, Pool, Unwell, a_call, a_worker, bringing, dispatching, has_ended, when
from face.diary import note
from face.diary import said as the_diary
from face.serving import until, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task(rerun_after_crash=False, on_failure=lambda failed: the_diary.append(f"{failed.id} has failed"))
async def once() -> None: ...


def a_note(text: str, **fields: Any) -> NewTask:
    return a_call(note, arguments=f'{{"text": "{text}"}}', **fields)


async def test_what_is_stored_is_sent_and_runs_where_it_is_brought(engine: MemoryEngine, said: list[str]) -> None:
    pool, new = Pool(), a_note("one", queue="mail", priority=7)
    async with dispatching(engine, pool), a_worker(engine) as worker:
        await engine.enqueue([new])
        await until(lambda: pool.sent)
        [sent] = pool.sent
        assert (sent.lease, sent.queue, sent.priority) == (Lease(new.id, 1), "mail", 7)
        assert await worker.run(sent.lease)
        [ran] = await engine.get([new.id])
    assert (ran.state, ran.attempt, ran.result, said) == (State.SUCCEEDED, 1, '"one"', ["one"])


async def test_what_is_on_its_way_is_not_sent_again(engine: MemoryEngine) -> None:
    pool, new, later = Pool(), a_note("one"), a_note("two")
    async with dispatching(engine, pool) as first, dispatching(engine, pool) as second:
        await engine.enqueue([new])
        await until(lambda: pool.sent)
        for one in (first, second):
            await one.until_idle()
        await engine.enqueue([later])
        await until(lambda: len(pool.sent) > 1)
        for one in (first, second):
            await one.until_idle()
    assert [one.lease for one in pool.sent] == [Lease(new.id, 1), Lease(later.id, 1)]


async def test_what_was_lost_on_its_way_is_sent_again(engine: MemoryEngine, clock: FakeClock) -> None:
    pool, new = Pool(again_after=30 * SECOND), a_note("one")
    async with dispatching(engine, pool):
        await engine.enqueue([new])
        lost = await pool.takes()
        clock.advance(30)
        assert await pool.takes() == lost == Lease(new.id, 1)


async def test_the_tasks_of_a_chain_are_sent_one_after_the_other(engine: MemoryEngine, said: list[str]) -> None:
    pool, first = Pool(), a_note("first")
    second = a_note("second", after=first.id)
    third = a_note("third", after=second.id)
    async with dispatching(engine, pool), a_worker(engine) as worker, bringing(pool, worker):
        await engine.enqueue([first, second, third])
        await when(engine, third, has_ended)
    assert said == ["first", "second", "third"]


async def test_no_more_are_sent_than_may_be_on_their_way(engine: MemoryEngine) -> None:
    pool = Pool(ahead=2)
    tasks = [a_note(text) for text in "abcd"]
    async with dispatching(engine, pool), a_worker(engine) as worker:
        await engine.enqueue(tasks)
        await until(lambda: len(pool.sent) == 2)
        assert await worker.run(await pool.takes())
        await until(lambda: len(pool.sent) == 2)
        sent = [one.lease for one in pool.sent]
    assert sent == [Lease(tasks[1].id, 1), Lease(tasks[2].id, 1)]


async def test_what_no_process_of_the_fleet_knows_keeps_nothing_from_being_sent(
    engine: MemoryEngine, clock: FakeClock
) -> None:
    pool, new = Pool(ahead=2), a_note("one")
    unknown = [a_call(once, arguments="{}") for _ in range(3)]
    old = LiveWorker(id="old", host="h", pid="1", started_at=clock(), names=frozenset({"note"}))
    await engine.announce([old])

    async def claimed_by(worker: LiveWorker) -> list[Task]:
        starts = frozenset(one.lease for one in pool.sent)
        pool.sent.clear()
        return await engine.claim(Claim(worker=worker.id, limit=9, lease=HOLD, names=worker.names, starts=starts))

    async with dispatching(engine, pool):
        await engine.enqueue([*unknown, new])
        [claimed] = await until_async(lambda: claimed_by(old))
        assert claimed.id == new.id
        newer = replace(old, id="newer", names=frozenset({"note", "once"}))
        await engine.announce([newer])
        assert await until_async(lambda: claimed_by(newer))


async def test_what_the_broker_does_not_accept_is_sent_later_in_order(
    engine: MemoryEngine, caplog: pytest.LogCaptureFixture
) -> None:
    pool, health = Pool(), Health()
    pool.accepts = 1
    tasks = [a_note(text) for text in "abc"]
    async with dispatching(engine, pool, health=health):
        await engine.enqueue(tasks)
        await until(lambda: pool.asked > 2)
        assert [one.lease.task_id for one in pool.sent] == [tasks[0].id]
        pool.accepts = 10
        await until(lambda: len(pool.sent) == 3)
        lines = await until(lambda: len(told := _told(caplog)) > 1 and told)
    assert [one.lease.task_id for one in pool.sent] == [one.id for one in tasks]
    assert _told(caplog) == lines
    assert ["could not send" in line for line in lines] == [True, False]  # once each
    assert "its broker is away; 2 tasks wait" in lines[0]
    assert health.trouble is None


def _told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if line.startswith("dispatcher: ")]


async def test_while_the_broker_is_away_nothing_else_is_asked_for(engine: MemoryEngine) -> None:
    pool = Pool()
    pool.accepts = 0
    async with dispatching(engine, pool):
        await engine.enqueue([a_note("one")])
        await until(lambda: pool.asked)
        await engine.enqueue([late := a_note("late")])
        tried = pool.asked
        await until(lambda: pool.asked > tried + 1)
        ahead = Claim(worker="w", limit=10, lease=SECOND, names=frozenset({"note"}))
        found = await engine.dispatch(ahead, again=HOLD)
    assert [one.lease.task_id for one in found.tasks] == [late.id]


async def test_what_could_not_be_sent_is_left_to_others_at_the_end(engine: MemoryEngine) -> None:
    away, pool, new = Pool(), Pool(), a_note("one")
    away.accepts = 0
    async with dispatching(engine, pool) as other:
        await other.until_idle()
        other.drain()
        async with dispatching(engine, away):
            await engine.enqueue([new])
            await until(lambda: away.asked)
    async with dispatching(engine, pool):  # the clock stands still: nothing is sent again by itself
        assert await pool.takes() == Lease(new.id, 1)


async def test_a_fleet_that_raises_is_asked_again_and_three_times_is_trouble(
    engine: MemoryEngine, caplog: pytest.LogCaptureFixture
) -> None:
    pool, health, new = Pool(), Health(), a_note("one")
    pool.broken = ZeroDivisionError("a bug of the fleet's")
    async with dispatching(engine, pool, health=health):
        await engine.enqueue([new])
        await until(lambda: health.trouble)
        assert health.trouble == "it cannot dispatch tasks"
        pool.broken = None
        assert await pool.takes() == Lease(new.id, 1)
        await until(lambda: health.trouble is None)


async def test_it_waits_for_a_store_that_is_away() -> None:
    engine, pool, new, health = Unwell(EngineUnavailable("it is away")), Pool(), a_note("one"), Health()
    await engine.enqueue([new])
    async with dispatching(engine, pool, health=health):
        assert await pool.takes() == Lease(new.id, 1)
        assert health.trouble is None


async def test_a_dispatcher_that_drains_fires_nothing_more() -> None:
    engine, pool = MemoryEngine(), Pool()
    scheduled = Scheduled(name="note", schedule=Every(SECOND), missed=Missed.LATEST, call=lambda: a_note("one"))
    async with dispatching(engine, pool, timetable=lambda: [scheduled]) as dispatcher:
        await until(lambda: engine.tasks)
        dispatcher.drain()
        before, drained = len(engine.tasks), monotonic()
        await until(lambda: monotonic() > drained + 2.1)  # two fires would have come
        assert len(engine.tasks) == before


async def test_a_dispatcher_that_drains_sends_nothing_more(engine: MemoryEngine) -> None:
    pool, new = Pool(), a_note("one")
    async with dispatching(engine, pool) as dispatcher:
        await dispatcher.until_idle()
        dispatcher.drain()
        await engine.enqueue([new])
    assert pool.sent == []
    async with dispatching(engine, pool):
        assert await pool.takes() == Lease(new.id, 1)


async def test_it_is_registered_without_slots_until_it_leaves(engine: MemoryEngine) -> None:
    async def registered() -> bool:
        return bool(await engine.workers(SECOND))

    async with dispatching(engine, Pool()) as dispatcher:
        await until_async(registered)
        [seen] = await engine.workers(SECOND)
        assert (seen.id, seen.slots, seen.names, seen.dispatches) == (dispatcher.id, 0, frozenset(), True)
    [left] = await engine.workers(SECOND)
    assert left.has_left


async def test_a_dispatcher_makes_nothing_routable(engine: MemoryEngine, clock: FakeClock) -> None:
    async def registered() -> bool:
        return bool(await engine.workers(SECOND))

    await engine.enqueue([a_note("one")])
    clock.advance(timedelta(minutes=11))
    async with dispatching(engine, Pool()):
        await until_async(registered)
        [found] = await engine.unroutable(timedelta(minutes=10))
    assert (found.name, found.reason) == ("note", "no worker lives")


async def test_it_takes_back_tasks_of_workers_that_died_and_tells_of_it(
    engine: MemoryEngine, clock: FakeClock, said: list[str]
) -> None:
    new = a_call(once, arguments="{}", rerun_after_crash=False)
    await engine.enqueue([new])
    assert len(await engine.claim(Claim(worker="dead", limit=1, lease=SECOND, names=frozenset({"once"})))) == 1
    async with dispatching(engine, Pool(), lease=0.3 * SECOND):
        clock.advance(2)
        lost = await when(engine, new, has_ended)
        await until(lambda: said)
    assert (lost.state, said) == (State.FAILED, [f"{new.id} has failed"])


async def test_it_brings_back_what_was_set_aside(engine: MemoryEngine, clock: FakeClock) -> None:
    pool, new = Pool(), a_note("one")
    await engine.enqueue([new])
    [claimed] = await engine.claim(Claim(worker="other", limit=1, lease=SECOND, names=frozenset({"note"})))
    refused = settle(claimed, SetAside("other code"), Retry(), worker="other", now=clock(), random=0)
    await engine.finish([refused])
    async with dispatching(engine, pool):
        assert await pool.takes() == Lease(new.id, 2)
    [task] = await engine.get([new.id])
    assert task.set_aside is None


async def test_it_fires_schedules() -> None:
    engine, pool = MemoryEngine(), Pool()
    scheduled = Scheduled(name="note", schedule=Every(SECOND), missed=Missed.LATEST, call=lambda: a_note("one"))
    async with dispatching(engine, pool, timetable=lambda: [scheduled]):
        await until(lambda: pool.sent)
