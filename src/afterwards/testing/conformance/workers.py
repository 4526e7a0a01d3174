"""The live workers, and the tasks that no worker would take."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from afterwards.core.routing import LiveWorker, PlainRun, Route, Unroutable
from afterwards.core.settling import SetAside
from afterwards.engine import Engine, Paused
from afterwards.testing.clock import START, FakeClock
from afterwards.testing.conformance.support import FAILURE, MICROSECOND, RELEASE, RETRY, SOON, Conformance

DAY = timedelta(days=1)
GREET = Route("greet", "default")


class LivingWorkers(Conformance):
    """Workers are announced, leave, and are forgotten."""

    async def test_a_worker_is_listed_as_it_was_announced(self, engine: Engine, clock: FakeClock) -> None:
        ada = self.worker("ada", queues=frozenset({"mail", "default"}), slots=7, started_at=START - MICROSECOND)
        clock.advance(SOON)
        await engine.announce([ada])
        [listed] = await engine.workers(SOON)
        assert listed == self.seen(ada, clock())
        assert (listed.queues, listed.slots, listed.host, listed.pid) == (ada.queues, 7, "host", "17")

    async def test_all_queues_and_no_queue_are_told_apart(self, engine: Engine) -> None:
        await engine.announce([self.worker("all"), self.worker("none", queues=frozenset(), names=frozenset())])
        everywhere, nowhere = await engine.workers(SOON)
        assert (everywhere.queues, nowhere.queues, nowhere.names) == (None, frozenset(), frozenset())

    async def test_announcing_it_again_notes_what_has_changed(self, engine: Engine, clock: FakeClock) -> None:
        await engine.announce([self.worker("ada")])
        clock.advance(SOON)
        changed = self.worker("ada", names=frozenset({"greet", "thank"}))
        await engine.announce([changed])
        assert await engine.workers(timedelta()) == [self.seen(changed, clock())]

    async def test_workers_are_listed_in_the_order_in_which_they_started(self, engine: Engine) -> None:
        young, old = self.worker("a"), self.worker("b", started_at=START - SOON)
        await engine.announce([young, old])
        await engine.announce([old])
        assert [one.id for one in await engine.workers(SOON)] == ["b", "a"]

    async def test_workers_that_started_together_are_listed_by_id(self, engine: Engine) -> None:
        await engine.announce([self.worker("b"), self.worker("a"), self.worker("c")])
        assert [one.id for one in await engine.workers(SOON)] == ["a", "b", "c"]

    async def test_who_was_not_seen_for_longer_is_not_listed(self, engine: Engine, clock: FakeClock) -> None:
        await engine.announce([self.worker("ada"), self.worker("dead")])
        clock.advance(SOON)
        await engine.announce([self.worker("ada")])
        assert [one.id for one in await engine.workers(SOON)] == ["ada", "dead"]
        assert [one.id for one in await engine.workers(SOON - MICROSECOND)] == ["ada"]

    async def test_who_has_left_is_seen_as_having_left(self, engine: Engine, clock: FakeClock) -> None:
        ada, eve = self.worker("ada"), self.worker("eve")
        await engine.announce([ada, eve])
        clock.advance(SOON)
        await engine.announce([replace(ada, has_left=True)])
        left = replace(self.seen(ada, clock()), has_left=True)
        assert await engine.workers(timedelta()) == [left]
        assert await engine.workers(SOON) == [left, self.seen(eve, START)]
        clock.advance(MICROSECOND)
        assert await engine.workers(timedelta()) == []

    async def test_who_is_back_after_it_had_left_lives(self, engine: Engine) -> None:
        ada = self.worker("ada")
        await engine.announce([ada])
        await engine.announce([replace(ada, has_left=True)])
        await engine.announce([ada])
        assert [one.has_left for one in await engine.workers(SOON)] == [False]

    async def test_what_a_worker_tells_of_itself_is_kept(self, engine: Engine) -> None:
        plain = PlainRun("thumbnail", started_at=START, origin="POST /upload")
        ada = self.worker("ada", lag=timedelta(milliseconds=12), version="1.2.3", running=(plain, plain))
        await engine.announce([ada])
        assert await engine.workers(SOON) == [self.seen(ada, START)]
        await engine.announce([self.worker("ada")])
        assert await engine.workers(SOON) == [self.seen(self.worker("ada"), START)]

    async def test_announcing_nobody_is_fine(self, engine: Engine) -> None:
        await engine.announce([])
        assert await engine.workers(SOON) == []

    async def test_who_was_not_seen_for_a_day_is_forgotten(self, engine: Engine, clock: FakeClock) -> None:
        await engine.announce([self.worker("dead"), self.worker("gone", has_left=True), self.worker("ada")])
        clock.advance(DAY - MICROSECOND)
        await engine.announce([self.worker("ada")])
        await engine.prune(limit=10)
        assert len(await engine.workers(DAY * 2)) == 3
        clock.advance(MICROSECOND)
        assert await engine.prune(limit=10) == 0  # workers are not tasks
        assert [one.id for one in await engine.workers(DAY * 2)] == ["ada"]

    def worker(self, id: str, **fields: object) -> LiveWorker:
        known = {"host": "host", "pid": "17", "started_at": START, "names": frozenset({"greet"})}
        return LiveWorker(**{"id": id, **known, **fields})  # type: ignore[arg-type]

    def seen(self, worker: LiveWorker, at: datetime) -> LiveWorker:
        return replace(worker, seen_at=at)


class WaitingForWorkers(Conformance):
    """The claimable tasks, and since when they are claimable."""

    async def test_all_that_could_be_claimed_is_unroutable_where_no_worker_lives(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        first = self.task("thank", queue="mail")
        await engine.enqueue([first, self.task("thank", queue="mail"), self.task(), self.task("thank")])
        await engine.enqueue([self.task("later", wait=SOON), self.task("held", held=True)])
        await engine.enqueue([self.task("behind", after=first.id)])
        await self.ended(engine, name="ended")
        await self.running(engine, name="running")
        assert await self.routes(engine) == {GREET, Route("thank", "default"), Route("thank", "mail")}

    async def test_nothing_is_unroutable_where_nothing_is(self, engine: Engine) -> None:
        assert await engine.unroutable(timedelta()) == []

    async def test_what_a_worker_would_take_is_routable(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task(), self.task(queue="mail"), self.task("thank"), self.task("thank")])
        worker = LiveWorker(id="w", host="h", pid="1", started_at=START, names=frozenset({"greet"}))
        await engine.announce([replace(worker, queues=frozenset({"default"}))])
        assert [(one.name, one.queue, one.count, one.reason) for one in await engine.unroutable(timedelta())] == [
            ("greet", "mail", 1, "no live worker that knows it serves queue mail"),
            ("thank", "default", 2, "no live worker knows it"),
        ]
        clock.advance(SOON)
        assert len(await engine.unroutable(SOON)) == 2  # it was seen within this span
        assert len(await engine.unroutable(SOON - MICROSECOND)) == 3

    async def test_who_has_left_within_the_span_may_come_back(self, engine: Engine) -> None:
        await engine.enqueue([self.task()])
        left = LiveWorker(id="w", host="h", pid="1", started_at=START, names=frozenset({"greet"}), has_left=True)
        await engine.announce([left])
        assert await engine.unroutable(timedelta()) == []

    @pytest.mark.parametrize("paused", [Paused(names=frozenset({"greet"})), Paused(queues=frozenset({"default"}))])
    async def test_what_is_paused_is_left_out(self, engine: Engine, paused: Paused) -> None:
        await engine.enqueue([self.task()])
        await engine.pause(paused)
        assert await engine.unroutable(timedelta()) == []
        await engine.resume(paused)
        assert len(await engine.unroutable(timedelta())) == 1

    async def test_what_is_due_has_a_route_although_nobody_claims(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task(wait=SOON)])
        clock.advance(SOON - MICROSECOND)
        assert await self.routes(engine) == set()
        clock.advance(MICROSECOND)
        assert await self.routes(engine) == {GREET}
        assert await self.backlog(engine) == (1, START + SOON)

    async def test_a_suspect_has_a_route(self, engine: Engine, clock: FakeClock) -> None:
        lost = await self.running(engine)
        clock.advance(timedelta(minutes=1))
        assert await self.lose(engine, [await self.one(engine, lost)]) == []
        await self.claim(engine, names=["other"])
        assert await self.routes(engine) == {GREET}
        assert await self.backlog(engine) == (1, clock())

    async def test_what_waits_longest_comes_first(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task("thank")])
        clock.advance(SOON)
        await engine.enqueue([self.task(), self.task(), self.task(queue="mail")])
        assert await engine.unroutable(timedelta()) == [
            Unroutable(name=name, queue=queue, count=count, since=since, reason="no worker lives")
            for name, queue, count, since in (
                ("thank", "default", 1, START),
                ("greet", "default", 2, clock()),
                ("greet", "mail", 1, clock()),
            )
        ]

    async def test_only_what_has_waited_for_so_long_counts(self, engine: Engine, clock: FakeClock) -> None:
        await engine.enqueue([self.task()])
        clock.advance(SOON)
        await engine.enqueue([self.task()])
        assert await self.backlog(engine) == (2, START)
        assert await self.backlog(engine, waited=SOON) == (1, START)
        assert await self.backlog(engine, waited=SOON + MICROSECOND) is None

    async def test_a_delayed_task_waits_since_it_was_due_whenever_that_was_noticed(
        self, engine: Engine, clock: FakeClock
    ) -> None:
        await engine.enqueue([self.task(wait=SOON)])
        clock.advance(SOON * 3)
        before = await self.backlog(engine)
        await self.claim(engine, names=["other"])  # this also queues tasks that are due
        assert before == await self.backlog(engine) == (1, START + SOON)
        assert await self.backlog(engine, waited=SOON * 2 + MICROSECOND) is None

    async def test_a_held_task_waits_since_it_was_published(self, engine: Engine, clock: FakeClock) -> None:
        [held] = await engine.enqueue([self.task(held=True)])
        clock.advance(SOON)
        await engine.publish([(held.lease, None)])
        assert await self.backlog(engine) == (1, clock())

    async def test_a_task_behind_another_waits_since_that_succeeded(self, engine: Engine, clock: FakeClock) -> None:
        before = await self.running(engine, name="thank")
        await engine.enqueue([self.task(after=before.id)])
        clock.advance(SOON)
        await self.succeed(engine, before)
        assert await self.backlog(engine) == (1, clock())

    async def test_a_task_that_was_given_back_waits_since_then(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.running(engine)
        clock.advance(SOON)
        await self.finish(engine, task, RELEASE)
        assert await self.backlog(engine) == (1, clock())

    async def test_a_retry_waits_since_it_was_due(self, engine: Engine, clock: FakeClock) -> None:
        await self.finish(engine, await self.running(engine), RETRY)
        clock.advance(SOON * 2)
        assert await self.backlog(engine) == (1, START + SOON)

    async def test_a_requeued_task_waits_since_then(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.ended(engine, FAILURE)
        clock.advance(SOON)
        await engine.requeue([task.id])
        assert await self.backlog(engine) == (1, clock())

    async def test_a_task_that_was_brought_back_waits_since_then(self, engine: Engine, clock: FakeClock) -> None:
        task = await self.ended(engine, SetAside("its arguments do not fit"))
        clock.advance(SOON)
        assert await self.claim(engine, ids=[task.id], names=["other"]) == []
        assert await self.backlog(engine) == (1, clock())

    async def test_what_was_claimed_or_cancelled_waits_no_longer(self, engine: Engine) -> None:
        cancelled = self.task()
        await engine.enqueue([cancelled, self.task()])
        await engine.cancel([cancelled.id], "no")
        assert await self.backlog(engine) == (1, START)
        await self.claim(engine)
        assert await self.routes(engine) == set()
        assert await self.backlog(engine) is None

    async def test_looking_changes_nothing(self, engine: Engine, clock: FakeClock) -> None:
        new = [self.task(), self.task(wait=SOON)]
        stored = await engine.enqueue(new)
        clock.advance(SOON * 2)
        await self.backlog(engine)
        assert await engine.get([task.id for task in new]) == stored

    async def routes(self, engine: Engine) -> set[Route]:
        return {Route(one.name, one.queue) for one in await engine.unroutable(timedelta())}

    async def backlog(self, engine: Engine, waited: timedelta = timedelta()) -> tuple[int, datetime] | None:
        """Return how many greetings wait, and since when."""
        for found in await engine.unroutable(waited):
            if (found.name, found.queue) == GREET:
                return found.count, found.since
        return None
