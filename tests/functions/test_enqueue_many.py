"""``await tasks.enqueue_many([f.call(...), ...])`` and ``tasks.enqueue_many_sync(...)``: all or none, in one go."""

import asyncio
import gc
import io
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request, UploadFile
from fastapi.testclient import TestClient

from afterwards import (
    Afterwards,
    Call,
    InvalidOption,
    QueueFull,
    State,
    TaskHandle,
    TooLarge,
    UnstorableArgument,
    chain,
    task,
)
from afterwards.testing import assert_enqueued, drain
from face.diary import note
from face.serving import finished, records, serving, working

real = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]
pytestmark = pytest.mark.filterwarnings("error")


@task
async def double(number: int) -> int:
    return 2 * number


@task
def read(file: UploadFile) -> str:
    return file.file.read().decode()


@task(unique="{text}")
async def once_at_a_time(text: str) -> None: ...


@task(idempotency_key="{text}")
async def only_once(text: str) -> None: ...


async def the_tasks(request: Request) -> Any:
    return request.app.state.tasks


@task
async def notes_more(texts: list[str], tasks: Any = Depends(the_tasks)) -> None:
    await tasks.enqueue_many([note.call(text) for text in texts])


@pytest.fixture
async def tasks(url: str) -> AsyncIterator[Afterwards]:
    """An installation that only stores."""
    tasks = Afterwards(url=url, worker=False)
    yield tasks
    await tasks.client.close()


def a_file(content: str) -> UploadFile:
    return UploadFile(io.BytesIO(content.encode()), size=len(content), filename="file.txt")


class TestStoring:
    pytestmark = real

    async def test_calls_of_several_functions_run_and_their_handles_come_in_order(self, url: str) -> None:
        async with working(url) as tasks:
            handles = await tasks.enqueue_many([double.call(3), read.call(a_file("text")), double.call(number=4)])
            assert [await handle.result(timeout=30) for handle in handles] == [6, "text", 8]

    async def test_they_are_stored_in_the_order_given(self, tasks: Afterwards) -> None:
        handles = await tasks.enqueue_many(double.call(number) for number in range(1000))
        engine = await tasks.client.open()
        stored = await engine.get([handle.id for handle in handles])
        assert [task.arguments for task in stored] == [f'{{"number":{number}}}' for number in range(1000)]
        assert [task.id for task in await records(tasks)] == [handle.id for handle in handles][-100:]

    async def test_no_calls_give_no_handles(self, tasks: Afterwards) -> None:
        assert await tasks.enqueue_many([]) == []
        assert await records(tasks) == []

    async def test_each_call_has_its_own_options(self, tasks: Afterwards) -> None:
        first = await double.enqueue(1)
        mixed = [double.options(delay=60, queue="slow").call(1), double.options(after=first).call(2), double.call(3)]
        await tasks.enqueue_many(mixed)
        stored = [(task.state, task.queue, task.after) for task in await records(tasks)][1:]
        assert stored == [
            (State.SCHEDULED, "slow", None),
            (State.WAITING, "default", first.id),
            (State.QUEUED, "default", None),
        ]

    async def test_a_call_that_is_given_twice_makes_two_tasks(self, tasks: Afterwards) -> None:
        call = double.call(1)
        handles = await tasks.enqueue_many([call, call])
        assert len({handle.id for handle in handles}) == 2
        assert len(await tasks.enqueue_many([call])) == 1
        assert len(await records(tasks)) == 3

    @pytest.mark.parametrize("function", [once_at_a_time, only_once])
    async def test_calls_that_another_task_answers_have_its_handle(self, tasks: Afterwards, function: Any) -> None:
        before = await function.enqueue("a")
        handles = await tasks.enqueue_many([function.call(text) for text in "abab"])
        assert [handle.id for handle in handles] == [before.id, handles[1].id] * 2
        assert len(await records(tasks)) == 2

    async def test_the_calls_of_a_chain_may_be_followed_by_many(self, tasks: Afterwards) -> None:
        *_, last = await chain(double.call(1), double.call(2))
        await tasks.enqueue_many([double.options(after=last).call(number) for number in range(3)])
        assert [task.state for task in await records(tasks)] == [State.QUEUED, *[State.WAITING] * 4]

    async def test_a_thread_stores_many(self, tasks: Afterwards) -> None:
        handles = await asyncio.to_thread(tasks.enqueue_many_sync, [double.call(1), double.call(2)])
        assert [task.id for task in await records(tasks)] == [handle.id for handle in handles]
        with pytest.raises(RuntimeError, match=r"await tasks\.enqueue_many"):
            tasks.enqueue_many_sync([double.call(1)])

    async def test_they_are_stored_in_the_installation_that_is_named(self, tmp_path: Any) -> None:
        app = FastAPI()
        one, other = (Afterwards(made, f"sqlite:///{tmp_path}/{name}.db") for made, name in ((app, "a"), (None, "b")))

        @app.get("/")
        async def handler() -> str:
            [handle] = await other.enqueue_many([note.call("hello")])
            return handle.id

        async with serving(app) as http:
            id = (await http.get("/")).json()
            [stored] = await records(other)
            assert (stored.id, stored.origin) == (id, "GET /")
            assert await records(one) == []
        await other.client.close()

    async def test_a_request_and_a_task_store_many(self, url: str, said: list[str]) -> None:
        app = FastAPI()
        tasks = app.state.tasks = Afterwards(app, url)

        @app.get("/")
        async def handler() -> list[str]:
            return [handle.id for handle in await tasks.enqueue_many([notes_more.call(["a", "b"]), note.call("c")])]

        async with serving(app) as http:
            ids = (await http.get("/")).json()
            for id in ids:
                await finished(await tasks.get(id))
            for one in await records(tasks):
                await finished(await tasks.get(one.id))
        assert sorted(said) == ["a", "b", "c"]


class TestAllOrNone:
    pytestmark = real

    async def test_a_full_queue_stores_none_and_no_file(self, url: str) -> None:
        tasks = Afterwards(url=url, worker=False, max_queued=2)
        with pytest.raises(QueueFull):
            await tasks.enqueue_many([read.call(a_file("text")), *(double.call(number) for number in range(2))])
        assert await records(tasks) == []
        await tasks.enqueue_many([read.call(a_file("text")), double.call(1)])
        assert len(await records(tasks)) == 2
        await tasks.client.close()

    async def test_an_argument_that_cannot_be_stored_stores_none(self, tasks: Afterwards) -> None:
        wrong: Any = object()
        with pytest.raises(UnstorableArgument):
            await tasks.enqueue_many([double.call(1), double.call(wrong)])
        with pytest.raises(TooLarge):
            await tasks.enqueue_many([note.call("a"), note.call("a" * 300_000)])
        assert await records(tasks) == []

    async def test_what_is_no_call_is_refused_with_what_to_write(self, tasks: Afterwards) -> None:
        wrong: list[tuple[Any, str]] = [
            ([double], "write `tasks.enqueue_many([double.call(...)])`"),
            ([double.call(1), double(1)], "write `tasks.enqueue_many([double.call(1)])`"),
            ([2], "a value of type int is no call"),
            ([await double.enqueue(1)], "stored already"),
            (double.call(1), "give a list of calls"),
            (double, "give a list of calls"),
            ("calls", "give a list of calls"),
            (5, "give a list of calls"),
            ([double.options(session=None).call(1), (double, 1)], "a value of type tuple is no call"),
        ]
        for calls, said in wrong:
            with pytest.raises(InvalidOption) as raised:
                await tasks.enqueue_many(calls)
            assert said in str(raised.value)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no coroutine was left
            gc.collect()
        assert len(await records(tasks)) == 1

    async def test_a_session_cannot_be_set(self, tasks: Afterwards) -> None:
        orm = pytest.importorskip("sqlalchemy.orm")
        with pytest.raises(InvalidOption, match="in enqueue_many: `"):
            await tasks.enqueue_many([double.options(session=orm.Session()).call(1)])
        assert await records(tasks) == []


class TestInTests:
    @pytest.fixture
    def client(self) -> Iterator[TestClient]:
        app = FastAPI()
        tasks = Afterwards(app)

        @app.get("/")
        async def handler() -> list[str]:
            calls: list[Call[int]] = [double.options(delay=60).call(1), double.call(2)]
            handles: list[TaskHandle[int]] = await tasks.enqueue_many(calls)
            return [handle.id for handle in handles]

        yield TestClient(app)

    def test_a_test_finds_each_of_them(self, client: TestClient) -> None:
        ids = client.get("/").json()
        assert assert_enqueued(double, number=1, delay=60).id == ids[0]
        assert assert_enqueued(double, number=2, delay=0).state is State.SUCCEEDED
        drain(scheduled=True)
        assert assert_enqueued(double, number=1).result == 2

    def test_a_test_stores_many(self) -> None:
        app = FastAPI()
        tasks = Afterwards(app)
        tasks.enqueue_many_sync([double.call(number) for number in range(3)])
        drain()
        assert assert_enqueued(double, number=2).result == 4
