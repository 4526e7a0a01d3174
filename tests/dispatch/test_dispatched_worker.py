"""The worker in a process of a fleet: it claims what is brought to it, and nothing else."""

import asyncio
import threading
from datetime import timedelta

import pytest

from afterwards import State, task
from afterwards.core.errors import EngineUnavailable
from afterwards.core.settling import Settled
from afterwards.core.task import FailureKind, Lease, NewTask
from afterwards.engine import Claim
from afterwards.engines.memory import MemoryEngine
from dispatch.pool import SECOND, Pool, Unwell, a_call, a_worker, bringing, dispatching
from face.diary import note, take
from face.serving import until, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

began, go = threading.Event(), threading.Event()


@task(name="thread_until_told")
def thread_until_told() -> None:
    began.set()
    go.wait(60)


@task
async def fail_twice() -> str:
    raise ValueError("again")


def a_note(text: str = "one") -> NewTask:
    return a_call(note, arguments=f'{{"text": "{text}"}}')


def a_long_one(text: str = "long") -> NewTask:
    return a_call(take, arguments=f'{{"seconds": 600, "text": "{text}"}}')


def first(new: NewTask) -> Lease:
    """Return the lease of a task's first attempt."""
    return Lease(new.id, 1)


async def test_it_claims_nothing_by_itself(engine: MemoryEngine, said: list[str]) -> None:
    brought, other = a_note("brought"), a_note("other")
    async with a_worker(engine) as worker:
        await engine.enqueue([other, brought])
        assert await worker.run(first(brought))
        [left] = await engine.get([other.id])
    assert (left.state, said) == (State.QUEUED, ["brought"])


async def test_what_is_brought_twice_runs_once(engine: MemoryEngine, said: list[str]) -> None:
    new = a_note()
    async with a_worker(engine) as worker, a_worker(engine) as other:
        await engine.enqueue([new])
        both = await asyncio.gather(*(one.run(first(new)) for one in (worker, worker, other)))
        assert not await worker.run(first(new))
    assert (sorted(both), said) == ([False, False, True], ["one"])


async def test_what_nobody_has_sent_is_refused(engine: MemoryEngine) -> None:
    new = a_note()
    async with a_worker(engine) as worker:
        await engine.enqueue([new])
        assert not await worker.run(Lease(new.id, 2))
        assert not await worker.run(Lease("forged", 1))


async def test_the_end_is_stored_when_it_returns(engine: MemoryEngine) -> None:
    async with a_worker(engine) as worker:
        for number in range(20):
            new = a_note(f"{number}")
            await engine.enqueue([new])
            assert await worker.run(first(new))
            [ended] = await engine.get([new.id])
            assert ended.state is State.SUCCEEDED


async def test_a_failure_is_the_record_s_and_not_the_fleet_s(engine: MemoryEngine) -> None:
    new = a_call(fail_twice, arguments="{}")
    async with a_worker(engine) as worker:
        await engine.enqueue([new])
        assert await worker.run(first(new))
        [failed] = await engine.get([new.id])
    assert (failed.state, [one.kind for one in failed.failures]) == (State.FAILED, [FailureKind.RAISED])


async def test_those_that_wait_for_a_slow_store_share_a_claim(engine: MemoryEngine, said: list[str]) -> None:
    tasks = [a_note(f"{number}") for number in range(50)]
    async with a_worker(engine) as worker:
        await engine.enqueue(tasks)
        assert all(await asyncio.gather(*(worker.run(first(one)) for one in tasks)))
    assert len(said) == 50


@pytest.mark.parametrize("error", [EngineUnavailable("it is away"), ZeroDivisionError("a bug")])
async def test_what_arrives_waits_for_a_store_that_fails(error: Exception, said: list[str]) -> None:
    engine, new = Unwell(error), a_note()
    async with a_worker(engine) as worker:
        await engine.enqueue([new])
        assert await worker.run(first(new))
    assert (said, engine.errors) == (["one"], [])


async def test_a_drain_while_the_store_is_away_ends_all_the_same(said: list[str]) -> None:
    engine, new = Unwell(), a_note()
    async with a_worker(engine) as worker:
        await engine.enqueue([new])
        worker.drain()
        engine.errors.append(EngineUnavailable("it is away"))
        assert not await worker.run(first(new))
    assert said == []


async def test_a_drain_does_not_wait_for_a_store_that_was_away_before(said: list[str]) -> None:
    away = [EngineUnavailable("it is away") for _ in range(1000)]
    engine, new = Unwell(*away), a_note()
    async with a_worker(engine) as worker:
        await engine.enqueue([new])
        running = asyncio.create_task(worker.run(first(new)))
        await until(lambda: len(engine.errors) < len(away))
        worker.drain()
        assert not await asyncio.wait_for(running, 60)
    assert said == []


async def test_a_running_task_is_cancelled(engine: MemoryEngine, said: list[str]) -> None:
    new = a_long_one()
    async with a_worker(engine, lease=0.3 * SECOND) as worker:
        await engine.enqueue([new])
        running = asyncio.create_task(worker.run(first(new)))
        await until(lambda: said == ["long began"])
        await engine.cancel([new.id], "no longer needed")
        assert await running
        [cancelled] = await engine.get([new.id])
    assert (cancelled.state, cancelled.reason) == (State.CANCELLED, "no longer needed")


async def test_a_lost_lease_ends_the_run(engine: MemoryEngine, said: list[str]) -> None:
    new = a_long_one()
    async with a_worker(engine, lease=0.3 * SECOND) as worker:
        await engine.enqueue([new])
        running = asyncio.create_task(worker.run(first(new)))
        await until(lambda: said == ["long began"])
        lost = Settled(lease=first(new), state=State.SCHEDULED, wait=timedelta(hours=1))
        assert await engine.finish([lost]) == []
        assert await asyncio.wait_for(running, 60)


async def test_a_second_suspect_does_not_run_beside_one(engine: MemoryEngine, said: list[str]) -> None:
    """It may have been the one that brought down their process."""
    tasks = [a_long_one(text) for text in ("one", "two")]
    await engine.enqueue(tasks)
    claimed = await engine.claim(Claim(worker="dead", limit=2, lease=SECOND, names=frozenset({"take"})))
    await engine.finish([Settled(lease=one.lease, state=State.SCHEDULED, suspect=True) for one in claimed])
    async with a_worker(engine, grace=timedelta()) as worker:
        running = asyncio.create_task(worker.run(Lease(tasks[0].id, 2)))
        await until(lambda: said == ["one began"])
        assert not await worker.run(Lease(tasks[1].id, 2))
        [waiting] = await engine.get([tasks[1].id])
        assert (waiting.state, waiting.attempt) == (State.QUEUED, 1)
    assert await running


async def test_a_drain_gives_back_what_runs_and_charges_nothing(engine: MemoryEngine, said: list[str]) -> None:
    new = a_long_one()
    async with a_worker(engine, grace=timedelta()) as worker:
        await engine.enqueue([new])
        running = asyncio.create_task(worker.run(first(new)))
        await until(lambda: said == ["long began"])
        worker.drain()
        assert await asyncio.wait_for(running, 60)
        [released] = await engine.get([new.id])
    assert (released.state, released.attempt, released.failed, released.crashed) == (State.QUEUED, 1, 0, 0)
    assert [one.kind for one in released.failures] == [FailureKind.RELEASED]


async def test_a_second_drain_ends_the_grace_period(engine: MemoryEngine, said: list[str]) -> None:
    new = a_long_one()
    async with a_worker(engine) as worker:
        await engine.enqueue([new])
        running = asyncio.create_task(worker.run(first(new)))
        await until(lambda: said == ["long began"])
        worker.drain()
        worker.drain()
        assert await asyncio.wait_for(running, 50)


async def test_the_first_drain_after_the_end_has_begun_leaves_the_grace_period(
    engine: MemoryEngine, said: list[str]
) -> None:
    """hypercorn ends the lifespan of all its processes, and sends SIGTERM to those that end after the first."""
    new = a_call(take, arguments='{"seconds": 0.5, "text": "short"}')
    async with a_worker(engine) as worker:
        await engine.enqueue([new])
        running = asyncio.create_task(worker.run(first(new)))
        await until(lambda: said == ["short began"])
        asyncio.get_running_loop().call_later(0.1, worker.drain)
    assert await running
    [ended] = await engine.get([new.id])
    assert ended.state is State.SUCCEEDED


async def test_a_drain_waits_for_what_ends_in_time(engine: MemoryEngine, said: list[str]) -> None:
    new = a_call(take, arguments='{"seconds": 0.5, "text": "short"}')
    async with a_worker(engine) as worker:
        await engine.enqueue([new])
        running = asyncio.create_task(worker.run(first(new)))
        await until(lambda: said == ["short began"])
        worker.drain()
        assert await running
        [ended] = await engine.get([new.id])
    assert ended.state is State.SUCCEEDED


async def test_what_arrives_in_a_drain_is_sent_to_another_at_once(engine: MemoryEngine, said: list[str]) -> None:
    pool, new = Pool(), a_note()
    async with dispatching(engine, pool), a_worker(engine) as draining, a_worker(engine) as worker:
        draining.drain()
        await engine.enqueue([new])
        assert not await draining.run(await pool.takes())
        assert await worker.run(await pool.takes())  # the clock stands still: nothing is sent again by itself
    assert said == ["one"]


async def test_a_drain_does_not_wait_for_a_thread_that_cannot_be_stopped(engine: MemoryEngine) -> None:
    new = a_call(thread_until_told, arguments="{}")
    began.clear()
    go.clear()
    try:
        async with a_worker(engine, grace=timedelta()) as worker:
            await engine.enqueue([new])
            running = asyncio.create_task(worker.run(first(new)))
            await until(began.is_set)  # a task that is leased and not begun would be given back
            worker.drain()
            assert await asyncio.wait_for(running, 60)
            [task] = await engine.get([new.id])
            assert task.state is State.RUNNING  # it keeps its lease: it must not begin elsewhere
    finally:
        go.set()


async def test_what_its_tasks_store_goes_to_the_fleet(engine: MemoryEngine) -> None:
    """Nothing is leased as it is stored: the process that stores it may not serve its queue."""
    async with a_worker(engine) as worker:
        assert worker.offer(1) is None


async def test_it_is_registered_with_what_it_takes(engine: MemoryEngine) -> None:
    async def registered() -> bool:
        return bool(await engine.workers(SECOND))

    async with a_worker(engine, queues=frozenset({"mail"}), concurrency=4):
        await until_async(registered)
        [seen] = await engine.workers(SECOND)
    assert (seen.queues, seen.slots, "note" in seen.names) == (frozenset({"mail"}), 4, True)


async def test_all_that_is_stored_runs_once(engine: MemoryEngine, said: list[str]) -> None:
    pool = Pool(ahead=5)
    tasks = [a_note(f"{number}") for number in range(100)]
    async with (
        dispatching(engine, pool),
        dispatching(engine, pool),
        a_worker(engine) as worker,
        bringing(pool, worker),
    ):
        await engine.enqueue(tasks)
        await until(lambda: len(said) == 100)
    assert sorted(said, key=int) == [f"{number}" for number in range(100)]
