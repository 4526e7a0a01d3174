"""An application whose PostgreSQL server goes away and comes back, or whose connections to it break in every way."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, State, task
from afterwards.core import lifecycle
from afterwards.core.task import FailureKind, NewTask, task_id
from afterwards.engines import shared
from face.serving import records, serving, until, until_async, working
from servers.fixtures import private_postgres
from servers.postgres import CAREFUL, PostgresServer
from servers.proxy import Cut, Forward, Hold, Proxy, Refuse, Swallow

pytestmark = [pytest.mark.afterwards(real=True), pytest.mark.anyio, pytest.mark.xdist_group("postgres connections")]

ran: list[str] = []
"""What was noted, in the order in which it happened. Each test notes other texts."""


ARGUMENTS = '{"text": "sent by another"}'


@task
async def note(text: str) -> None:
    ran.append(text)


@dataclass(frozen=True)
class Place:
    """A database of a server that may be killed, behind a proxy."""

    server: PostgresServer
    proxy: Proxy
    database: str

    @property
    def url(self) -> str:
        return self.direct_url.replace(f":{self.server.port}/", f":{self.proxy.port}/")

    @property
    def direct_url(self) -> str:
        return self.server.url(self.database)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with private_postgres(CAREFUL) as server:
        yield server


@pytest.fixture(autouse=True)
def short_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of a request whose answer was lost start by themselves, and no test has a minute to wait for that."""
    monkeypatch.setattr(lifecycle, "HOLD", timedelta(seconds=1))


@pytest.fixture
def place(server: PostgresServer) -> Iterator[Place]:
    if not server.running:
        server.start()
    with Proxy(server.port) as proxy:
        yield Place(server, proxy, server.create_database())


@asynccontextmanager
async def an_application(place: Place, **options: float) -> AsyncIterator[tuple[httpx.AsyncClient, Afterwards]]:
    app = FastAPI()
    tasks = Afterwards(app, place.url, **options)

    @app.post("/note/{text}")
    async def add(text: str, background_tasks: BackgroundTasks) -> None:
        background_tasks.configure(idempotency_key=True)
        background_tasks.add_task(note, text)

    async with serving(app) as http:
        yield http, tasks


async def accepted(http: httpx.AsyncClient, text: str) -> None:
    """Ask, with a key, until it is accepted. Any other answer is the one for a store that is away."""

    async def asked() -> bool:
        answer = await http.post(f"/note/{text}", headers={"idempotency-key": text})
        if answer.status_code != 200:
            assert answer.status_code == 503, answer.text
            assert answer.headers["retry-after"]
        return answer.status_code == 200

    await until_async(asked)


async def has_run(*texts: str) -> None:
    """Wait until they have run, and see that each has run once."""
    await until(lambda: set(texts) <= set(ran))
    counted = Counter(ran)
    assert {text: counted[text] for text in texts} == dict.fromkeys(texts, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_the_server_is_restarted(place: Place, number: signal.Signals) -> None:
    before, meanwhile, after = (f"{when} {number.name}" for when in ("before", "while away", "after"))
    async with an_application(place) as (http, _):
        await accepted(http, before)
        await has_run(before)
        await asyncio.to_thread(place.server.kill, number)
        answer = await http.post(f"/note/{meanwhile}")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        await asyncio.to_thread(place.server.start)
        await accepted(http, after)
        await has_run(before, after)
    assert meanwhile not in ran


async def test_a_worker_that_nobody_asks_anything_goes_on_after_a_restart(place: Place) -> None:
    """It waits for a notice on a connection that is gone."""
    async with working(place.url):
        await asyncio.to_thread(place.server.restart, signal.SIGQUIT)
        async with shared(place.direct_url) as sender:
            await sender.enqueue(
                [NewTask(id=task_id(datetime.now(UTC), b"0123456789"), name="note", arguments=ARGUMENTS)]
            )
            await has_run("sent by another")


def hold(proxy: Proxy) -> None:
    proxy.switch(Hold())


def swallow(proxy: Proxy) -> None:
    proxy.switch(Swallow())
    proxy.lose()


def refuse(proxy: Proxy) -> None:
    proxy.switch(Refuse())
    proxy.reset()


@pytest.mark.parametrize(
    "trouble",
    [Proxy.reset, Proxy.half_open, hold, swallow, refuse],
    ids=["reset", "half open", "held up", "swallowed", "refused"],
)
async def test_the_network_fails(
    place: Place, trouble: Callable[[Proxy], None], request: pytest.FixtureRequest
) -> None:
    """A request is answered while the trouble lasts, and all goes on by itself afterwards."""
    before, after = f"before {request.node.callspec.id}", f"after {request.node.callspec.id}"
    async with an_application(place) as (http, _):
        await accepted(http, before)
        await has_run(before)
        trouble(place.proxy)
        answer = await http.post("/note/meanwhile")
        assert answer.status_code in (200, 503)
        place.proxy.switch(Forward())
        await accepted(http, after)
        await has_run(after)


async def test_an_enqueue_whose_answer_is_cut_is_repeated_and_stored_once(place: Place) -> None:
    async with an_application(place) as (http, tasks):
        texts = [f"cut {number}" for number in range(12)]
        for number, text in enumerate(texts):
            pieces = iter(range(number))
            place.proxy.cut(Cut(asked=lambda _, pieces=pieces: next(pieces, None) is None))
            await accepted(http, text)
        place.proxy.forget_cuts()
        await has_run(*texts)
        assert sorted(json.loads(one.arguments)["text"] for one in await records(tasks)) == sorted(texts)
    assert place.proxy.cuts_made > 3


async def test_the_answers_to_a_worker_are_cut(place: Place) -> None:
    """Claims, ends and heartbeats: leases are given back or run out, no end is stored twice, and all is done."""
    async with an_application(place, lease=1) as (http, tasks):
        pieces = iter(range(10**9))
        texts = [f"work {number}" for number in range(40)]
        for text in texts:
            place.proxy.cut(Cut(asked=lambda _: next(pieces) % 7 == 0))
            await accepted(http, text)
        place.proxy.forget_cuts()

        async def all_finished() -> bool:
            return all(one.state.finished for one in await records(tasks))

        await until_async(all_finished)
        stored = await records(tasks)
        assert [one.state for one in stored] == [State.SUCCEEDED] * 40
        for one in stored:
            lost = [failure.attempt for failure in one.failures]
            assert len(set(lost)) == len(lost) and set(lost) <= set(range(1, one.attempt)), "each attempt ends once"
            assert {failure.kind for failure in one.failures} <= {FailureKind.CRASHED, FailureKind.RELEASED}
        assert set(texts) <= set(ran)
    assert place.proxy.cuts_made > 5
