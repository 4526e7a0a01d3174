"""Server-sent events: one poller for any number of clients, the latest state for each of them."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends

from afterwards import Afterwards, BackgroundTasks, TaskRecord, engines
from afterwards.core.errors import EngineUnavailable
from afterwards.core.task import Task
from afterwards.engines.memory import MemoryEngine
from afterwards.engines.sqlite.io import schema
from afterwards.engines.sqlite.io.connection import OwnConnection
from afterwards.web import event_stream, live
from afterwards.web.watcher import Latest, Watcher
from face.serving import TIMEOUT, serving, until
from owners.events import Event, named
from owners.shop import ADA, STEPS, User, a_shop, added, following, gate, owns, statuses

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@asynccontextmanager
async def a_server(url: str, **options: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Afterwards]]:
    app, tasks = a_shop(url, **options)
    app.include_router(tasks.router(owner=owns), prefix="/tasks")
    async with serving(app) as http, many_connections(http) as many:
        yield many, tasks


@asynccontextmanager
async def many_connections(http: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=http.base_url, limits=limits, timeout=TIMEOUT, trust_env=False) as client:
        yield client


async def test_a_task_is_followed_to_its_end(url: str) -> None:
    async with a_server(url) as (http, _):
        id = await added(http, "make_report")
        seen: list[Event] = []
        async with following(http, id) as events:
            async for event in events:
                seen.append(event)
                if event.name == "status" and event.json["state"] == "running":
                    gate("ada").open.release()
        assert seen[0].retry == event_stream.RECONNECT
        assert list(statuses(seen))[-2:] == [("status", "running"), ("finished", "succeeded")]
        done = [event.json["progress"]["done"] for event in seen if event.name and event.json["progress"]]
        assert done == sorted(done) and done[-1] == STEPS
        ids = [event.id for event in seen if event.name]
        assert len(set(ids)) == len(ids), "every event has an id of its own"


async def test_who_comes_back_gets_the_current_state_and_after_the_end_no_answer(url: str) -> None:
    async with a_server(url) as (http, _):
        id = await added(http, "count", delay=60)
        async with following(http, id) as events:
            before = await named(events)
        async with following(http, id, **{"Last-Event-ID": before.id}) as events:
            assert (await named(events)).json == before.json
        await http.post(f"/tasks/{id}/cancel", headers=ADA)
        async with following(http, id, **{"Last-Event-ID": before.id}) as events:
            last = await named(events)
            assert (last.name, last.json["state"]) == ("finished", "cancelled")
        again = await http.get(f"/tasks/{id}/events", headers=ADA | {"Last-Event-ID": last.id})
        assert again.status_code == 204  # a browser gives up


class CountingSQLite(OwnConnection):
    statements = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_trace_callback(self.count)

    def count(self, statement: str) -> None:
        CountingSQLite.statements += 1


SECONDS = 2.5


async def test_a_hundred_clients_cost_as_many_questions_as_one(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "OwnConnection", CountingSQLite)
    counted: dict[int, int] = {}
    async with a_server(file, worker=False) as (http, tasks):
        ids = [await added(http, "count", delay=600) for _ in range(101)]
        for clients, followed in ((1, ids[:1]), (100, ids[1:])):
            async with AsyncExitStack() as stack:
                streams = [await stack.enter_async_context(following(http, id)) for id in followed]
                for events in streams:
                    assert (await named(events)).json["state"] == "scheduled"
                before = CountingSQLite.statements
                await asyncio.sleep(SECONDS)  # the time in which questions are counted
                counted[clients] = CountingSQLite.statements - before
                one_task = (await http.post(f"/tasks/{followed[-1]}/cancel", headers=ADA)).json()["id"]
                last = await named(streams[-1])
                assert (last.name, last.json["id"]) == ("finished", one_task)
        assert 1 <= counted[1] <= 4 * SECONDS * 4
        assert counted[100] <= counted[1] * 2
        await until(lambda: not live._lives.watched)
        before = CountingSQLite.statements
        await asyncio.sleep(SECONDS)
        assert CountingSQLite.statements - before < counted[1], "nobody watches, so nobody asks"
        assert tasks.healthy


async def test_more_clients_than_may_are_told_to_come_later(url: str) -> None:
    async with a_server(url, worker=False, max_streams=2) as (http, _):
        id = await added(http, "count", delay=600)
        async with following(http, id) as first:
            await named(first)
            async with following(http, id) as second:
                await named(second)
                refused = await http.get(f"/tasks/{id}/events", headers=ADA)
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
                assert (await http.get(f"/tasks/{id}", headers=ADA)).status_code == 200
            await until(lambda: watchers() == 1)
            async with following(http, id) as third:
                await named(third)


def watchers() -> int:
    return sum(1 for live_ in live._lives.watched.values() for _ in live_)


async def test_a_client_that_does_not_read_holds_up_nobody_and_is_not_queued_for(url: str) -> None:
    async with a_server(url) as (http, _):
        id = await added(http, "make_report")
        address = httpx.URL(str(http.base_url))
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=1)
        writer.write(f"GET /tasks/{id}/events HTTP/1.1\r\nHost: here\r\nX-User: ada\r\n\r\n".encode())
        await reader.read(1)
        watcher = next(iter(next(iter(live._lives.watched.values()))))
        async with following(http, id) as events:
            async for event in events:
                if event.name == "status" and event.json["state"] == "running":
                    gate("ada").open.release()
        kept = [getattr(watcher, name) for name in vars(watcher)]
        assert not any(isinstance(one, list | dict | set) for one in kept), "it holds one state, and no queue"
        writer.transport.abort()
        await until(lambda: not live._lives.watched)


async def test_a_watcher_that_is_slow_skips_states() -> None:
    watcher = Watcher("0")
    news = watcher.news(quiet=TIMEOUT)
    assert await anext(news) == Latest("0")
    for number in range(1, 10_000):
        assert watcher.offer(str(number))
    assert not watcher.offer("9999")
    assert await anext(news) == Latest("9999")
    watcher.end()
    with pytest.raises(StopAsyncIteration):
        await anext(news)


async def test_proxies_see_that_a_silent_stream_is_alive(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE", 0.05)
    async with a_server(url, worker=False) as (http, _):
        id = await added(http, "count", delay=600)
        async with following(http, id) as events:
            assert (await named(events)).name == "status"
            assert [(await anext(events)).comment for _ in range(2)] == ["still here"] * 2


@pytest.mark.parametrize(("limit", "value"), [("LARGEST", 1000), ("LONGEST", 0.2)])
async def test_a_stream_ends_before_it_is_too_long(
    url: str, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    """A browser connects again, and its owner is asked again."""
    monkeypatch.setattr(event_stream, "KEEP_ALIVE", 0.05)
    monkeypatch.setattr(event_stream, limit, value)
    async with a_server(url, worker=False) as (http, _):
        id = await added(http, "count", delay=600)
        for _ in range(2):
            async with following(http, id) as events:
                seen = [event async for event in events]
            assert list(statuses(seen)) == [("status", "scheduled")]


class Moody(MemoryEngine):
    """An engine that is away at times."""

    away = False

    async def get(self, ids: Sequence[str]) -> list[Task]:
        if self.away:
            raise EngineUnavailable("the engine is away")
        return await super().get(ids)


async def test_a_store_that_is_away_is_told_once_and_then_watched_again() -> None:
    engine = Moody()
    with engines.replaced(lambda url: engine):
        async with a_server("memory://", worker=False) as (http, _):
            id = await added(http, "count", delay=600)
            async with following(http, id) as events:
                await named(events)
                engine.away = True
                assert (await anext(events)).comment == "The task store is unavailable"
                refused = await http.get(f"/tasks/{id}/events", headers=ADA)
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
                engine.away = False
                back = await anext(events)
                assert (back.name, back.json["state"]) == ("status", "scheduled")
                await http.post(f"/tasks/{id}/cancel", headers=ADA)
                assert (await anext(events)).name == "finished"


async def test_the_stream_of_a_deleted_task_ends(file: str, tmp_path: Path) -> None:
    async with a_server(file, worker=False) as (http, _):
        id = await added(http, "count", delay=600)
        async with following(http, id) as events:
            await named(events)
            with closing(sqlite3.connect(tmp_path / "tasks.db")) as database, database:
                database.execute("DELETE FROM afterwards_tasks")
            assert [event.name for event in [one async for one in events] if event.name] == []
        assert (await http.get(f"/tasks/{id}/events", headers=ADA)).status_code == 404


async def test_the_session_of_an_owner_is_closed_before_the_stream_begins(url: str) -> None:
    opened: list[str] = []

    async def session(user: User) -> AsyncIterator[str]:
        opened.append(user)
        yield user
        opened.remove(user)

    def with_session(task: TaskRecord, found: Annotated[str, Depends(session)]) -> bool:
        return bool(task.arguments["user"] == found)

    app, tasks = a_shop(url, worker=False)
    app.include_router(tasks.router(owner=with_session), prefix="/tasks")
    async with serving(app) as http:
        id = await added(http, "count", delay=600)
        async with following(http, id) as events:
            await named(events)
            assert opened == []


async def test_tasks_that_an_owner_adds_run_once(url: str) -> None:
    ran: list[str] = []

    def audits(task: TaskRecord, user: User, background_tasks: BackgroundTasks) -> bool:
        background_tasks.add_task(ran.append, user)
        return True

    app, tasks = a_shop(url)
    app.include_router(tasks.router(owner=audits), prefix="/tasks")
    async with serving(app) as http:
        id = await added(http, "count")
        async with following(http, id) as events:
            async for _ in events:
                pass
        await until(lambda: ran)
    assert ran == ["ada"]


async def test_changes_of_this_process_are_seen_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SLOWEST", 3600.0)
    async with a_server(url) as (http, _):
        id = await added(http, "make_report")
        async with following(http, id) as events:
            while (await named(events)).json["state"] != "running":
                pass
            [watched] = live._lives.watched.values()
            monkeypatch.setattr(watched, "_pause", 3600.0)
            begun = monotonic()
            for _ in range(STEPS):
                gate("ada").open.release()
            while (await named(events)).name != "finished":
                pass
            assert monotonic() - begun < TIMEOUT / 2


async def test_an_overview_is_watched_and_its_clients_share_one_question(url: str) -> None:
    async with a_server(url, worker=False) as (http, tasks):
        with live.watching_overview(tasks.client) as one, live.watching_overview(tasks.client) as other:
            first = await anext(one.news(quiet=TIMEOUT))
            assert isinstance(first, Latest)
            assert first.value.summary.newest == ()
            id = await added(http, "count", delay=600)
            live.hurry(tasks.client)
            seen = [await anext(each.news(quiet=TIMEOUT)) for each in (one, other)]
            assert isinstance(seen[0], Latest) and isinstance(seen[1], Latest)
            assert [task.id for task in seen[0].value.summary.newest] == [id]


async def test_a_stream_that_begins_when_all_have_ended_ends_at_once(url: str) -> None:
    async with a_server(url, worker=False) as (http, tasks):
        id = await added(http, "count", delay=600)
        async with following(http, id) as events:
            await named(events)
            live.end(tasks.client)
            assert [one async for one in events] == []
        async with following(http, id) as events:
            assert [event.retry for event in [one async for one in events]] == [event_stream.RECONNECT]


async def test_the_end_of_the_lifespan_ends_all_watching(url: str) -> None:
    """Some servers tell nobody of their signal."""
    app, tasks = a_shop(url, worker=False)
    async with app.router.lifespan_context(app):
        watching = live.watching_overview(tasks.client)
        watcher = watching.__enter__()
        assert not watcher.ended.is_set()
    await until(watcher.ended.is_set)
    watching.__exit__(None, None, None)
