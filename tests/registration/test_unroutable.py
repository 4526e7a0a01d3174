"""What no worker would take is shown, logged once, and left alone."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from afterwards import engines
from afterwards.core.errors import EngineUnavailable
from afterwards.core.routing import LiveWorker
from afterwards.core.task import NewTask
from afterwards.engine import Paused, Query
from afterwards.engines.memory import MemoryEngine
from afterwards.execution.lateness import Lateness
from afterwards.execution.plain_runs import PlainRuns
from afterwards.tasks.registry import registry
from afterwards.testing.clock import START, FakeClock
from afterwards.worker import registration
from afterwards.worker.registration import Registration, find_unroutable
from face.diary import note
from face.serving import until, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

MINUTE = timedelta(minutes=1)


def worker(id: str, *names: str, queues: frozenset[str] | None = None) -> LiveWorker:
    return LiveWorker(id=id, host="host", pid="1", started_at=START, names=frozenset(names), queues=queues)


async def shown(engine: MemoryEngine) -> list[tuple[str, str, int, str]]:
    return [(one.name, one.queue, one.count, one.reason) for one in await find_unroutable(engine)]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def engine(clock: FakeClock) -> MemoryEngine:
    return MemoryEngine(clock=clock)


async def test_what_nobody_knows_for_ten_minutes_is_unroutable(engine: MemoryEngine, clock: FakeClock) -> None:
    await engine.enqueue([NewTask(id="1", name="f", arguments="{}"), NewTask(id="2", name="g", arguments="{}")])
    await engine.announce([worker("new", "g")])
    clock.advance(MINUTE * 10 - timedelta(seconds=1))
    assert await shown(engine) == []
    clock.advance(1)
    assert await shown(engine) == [("f", "default", 1, "no live worker knows it")]


async def test_while_the_old_worker_is_away_for_less_its_backlog_is_not_unroutable(
    engine: MemoryEngine, clock: FakeClock
) -> None:
    await engine.enqueue([NewTask(id="1", name="f", arguments="{}")])
    await engine.announce([worker("old", "f")])
    clock.advance(MINUTE * 60)
    await engine.announce([replace(worker("old", "f"), has_left=True), worker("new", "g")])
    clock.advance(MINUTE * 10)
    assert await shown(engine) == []
    clock.advance(1)
    await engine.announce([worker("new", "g")])
    [found] = await find_unroutable(engine)
    assert (found.reason, found.since) == ("no live worker knows it", START)


async def test_the_queue_that_nobody_serves_is_named(engine: MemoryEngine, clock: FakeClock) -> None:
    await engine.enqueue([NewTask(id=str(n), name="f", arguments="{}", queue="mail") for n in range(3)])
    clock.advance(MINUTE * 10)
    await engine.announce([worker("w", "f", queues=frozenset({"default"}))])
    assert await shown(engine) == [("f", "mail", 3, "no live worker that knows it serves queue mail")]


async def test_where_no_worker_lives_what_is_long_due_is_unroutable(engine: MemoryEngine, clock: FakeClock) -> None:
    await engine.enqueue([NewTask(id="1", name="f", arguments="{}", wait=MINUTE)])
    clock.advance(MINUTE * 11)
    assert await shown(engine) == [("f", "default", 1, "no worker lives")]


async def test_what_became_due_lately_is_not_unroutable(engine: MemoryEngine, clock: FakeClock) -> None:
    await engine.enqueue([NewTask(id="1", name="f", arguments="{}", wait=MINUTE * 10)])
    clock.advance(MINUTE * 15)
    assert await shown(engine) == []


@pytest.mark.parametrize("paused", [Paused(names=frozenset({"f"})), Paused(queues=frozenset({"default"}))])
async def test_what_is_paused_is_not_unroutable(engine: MemoryEngine, clock: FakeClock, paused: Paused) -> None:
    await engine.enqueue([NewTask(id="1", name="f", arguments="{}")])
    await engine.pause(paused)
    clock.advance(MINUTE * 20)
    assert await shown(engine) == []
    await engine.resume(paused)
    assert len(await shown(engine)) == 1


async def test_a_worker_warns_once_and_again_when_it_comes_back(
    engine: MemoryEngine, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    attendance = Registration(
        *(engine, "w"),
        names=lambda: registry.names,
        queues=None,
        slots=1,
        clock=clock,
        lateness=Lateness(),
        plain_runs=PlainRuns(),
    )
    stored = await engine.enqueue([NewTask(id="1", name="f", arguments="{}")])
    clock.advance(MINUTE * 20)
    await attendance.register()
    for _ in range(3):
        await attendance.look()
    assert [record.getMessage() for record in caplog.records] == [
        "unroutable: 1 task waits since 2026-01-01 12:00:00 UTC for f in queue default, and no live worker knows it. "
        "Nothing is lost: start a worker that takes them, add the name to the aliases of the function that replaced "
        "it, or cancel them"
    ]
    assert await engine.find(Query()) == stored
    await engine.pause(Paused(names=frozenset({"f"})))
    await attendance.look()
    await engine.resume(Paused(names=frozenset({"f"})))
    await attendance.look()
    assert len(caplog.records) == 2


class Moody(MemoryEngine):
    """An engine that does not answer `announce` and `workers` while it is told so."""

    away = False

    async def announce(self, workers: Sequence[LiveWorker]) -> None:
        if self.away:
            raise EngineUnavailable("away")
        await super().announce(workers)


async def test_a_worker_is_listed_as_long_as_it_lives(said: list[str]) -> None:
    engine = Moody()
    with engines.replaced(lambda url: engine):
        async with working("memory://", concurrency=3, queues={"default", "mail"}):
            await until_async(lambda: engine.workers(MINUTE))
            [listed] = await engine.workers(MINUTE)
            assert {"note", "take"} <= listed.names == registry.names
            assert (listed.queues, listed.slots) == ({"default", "mail"}, 3)
        assert [(one.id, one.has_left) for one in await engine.workers(MINUTE)] == [(listed.id, True)]


async def test_an_idle_worker_goes_on_signing_in_and_looking(
    said: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registration, "REGISTER_EVERY", timedelta(milliseconds=10))
    monkeypatch.setattr(registration, "LOOK_EVERY", timedelta(milliseconds=10))
    clock = FakeClock()
    engine = MemoryEngine(clock=clock)
    with engines.replaced(lambda url: engine):
        async with working("memory://"):
            await until_async(lambda: engine.workers(MINUTE))
            await engine.enqueue([NewTask(id="1", name="f", arguments="{}")])
            clock.advance(MINUTE * 20)
            await until_async(lambda: engine.workers(MINUTE))
            await until(lambda: "unroutable: 1 task waits" in caplog.text)


async def test_a_store_that_refuses_announcements_hurts_no_task(said: list[str]) -> None:
    engine = Moody()
    engine.away = True
    with engines.replaced(lambda url: engine):
        async with working("memory://"):
            assert await (await note.enqueue("here")).result(timeout=10) == "here"
            engine.away = False
            await until_async(lambda: engine.workers(MINUTE))
            engine.away = True
    assert [one.has_left for one in await engine.workers(MINUTE)] == [False]  # nobody could note that it has left
