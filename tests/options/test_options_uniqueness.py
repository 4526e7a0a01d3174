"""``unique`` and ``idempotency_key``: the task that is there answers."""

import copy
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, UploadFile

from afterwards import Afterwards, BackgroundTasks, InvalidKey, InvalidOption, State, UnknownTask, chain, task
from afterwards.client.client import current
from face.serving import an_engine, finished, records, serving, until, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

said: list[str] = []
gate: list[str] = []


@pytest.fixture(autouse=True)
def afresh() -> None:
    said.clear()
    gate.clear()


@task(unique=True)
async def refresh(page: str, deep: bool = False) -> str:
    await until(lambda: page in gate)
    said.append(page)
    return page


@task(unique="{user}")
async def rebuild(user: str, why: str) -> str:
    said.append(why)
    return why


@task(idempotency_key="pay-{order}")
async def pay(order: int) -> int:
    said.append(f"paid {order}")
    return order


@task
async def one_step(text: str) -> str:
    said.append(text)
    return text


@task(unique="{name}")
async def keep(file: UploadFile, name: str) -> str:
    await until(lambda: gate)
    return (await file.read()).decode()


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    app = FastAPI()
    app.state.tasks = Afterwards(app, an_engine(tmp_path))
    return app


async def test_while_one_runs_adding_it_again_gives_its_handle(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)) as tasks:
        first = await refresh.enqueue("home")
        again, other = await refresh.enqueue("home"), await refresh.enqueue("home", deep=True)
        assert again.id == first.id != other.id
        gate.append("home")
        assert await again.result(timeout=10) == "home"
        await finished(other)
        assert (await refresh.enqueue("home")).id != first.id
        assert len(await records(tasks)) == 3


async def test_the_one_that_answers_goes_on_undisturbed(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        first = await refresh.enqueue("home")
        await until_async(lambda: _runs(first))
        assert (await refresh.enqueue("home")).id == first.id
        asked = datetime.now(UTC)
        await until(
            lambda: datetime.now(UTC) - asked > timedelta(seconds=2.5)
        )  # what a worker keeps idle it gives back
        gate.append("home")
        record = await finished(first)
    assert (record.state, record.attempt, said) == (State.SUCCEEDED, 1, ["home"])


async def _runs(handle: Any) -> bool:
    return (await handle.status()).state is State.RUNNING


async def test_a_template_says_what_must_be_unique(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path), worker=False):
        first = await rebuild.enqueue("ada", "once")
        assert (await rebuild.enqueue("ada", "twice")).id == first.id
        assert (await rebuild.enqueue("eve", "once")).id != first.id
        assert (await rebuild.options(unique="other").enqueue("ada", "thrice")).id != first.id
        assert (await rebuild.options(unique=False).enqueue("ada", "freely")).id != first.id


async def test_an_idempotency_key_holds_after_the_end_and_finds_the_task(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)) as tasks:
        first = await pay.enqueue(7)
        await finished(first)
        again = await pay.enqueue(7)
        assert again.id == first.id
        assert await again.result(timeout=10) == 7
        assert (await tasks.get(key="pay-7")).id == first.id
        with pytest.raises(UnknownTask):
            await tasks.get(key="pay-8")
        for wrong in ({}, {"id": first.id, "key": "pay-7"}):
            with pytest.raises(InvalidOption, match="give one of them"):
                await tasks.get(**wrong)
    assert said == ["paid 7"]


async def test_a_key_of_any_characters_finds_its_task(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path), worker=False) as tasks:
        handle = await one_step.options(idempotency_key="ada@example.com / {1}").enqueue("hello")
        assert (await tasks.get(key="ada@example.com / {1}")).id == handle.id


async def test_the_handle_and_the_id_given_out_before_the_flush_still_resolve(app: FastAPI) -> None:
    handles: list[Any] = []

    @app.post("/{why}")
    async def handler(why: str, background_tasks: BackgroundTasks) -> dict[str, str]:
        handles.append(background_tasks.add_task(rebuild.options(delay=60), "ada", why))
        return {"task": handles[-1].id}

    @app.get("/{id}")
    async def status(id: str) -> str:
        return (await (await app.state.tasks.get(id)).status()).id

    async with serving(app) as http:
        first, second = [(await http.post(f"/{why}")).json()["task"] for why in ("once", "twice")]
        assert first != second
        assert (await http.get(f"/{second}")).json() == first
        assert [handle.id for handle in handles] == [first, first]
        assert (await handles[1].status()).state is State.SCHEDULED


async def test_what_is_answered_leaves_its_request_s_chain(app: FastAPI) -> None:
    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(one_step, "first")
        background_tasks.add_task(refresh, "home")
        background_tasks.add_task(one_step, "last")

    async with serving(app) as http:
        there = await _enqueued(app, "home")
        await http.post("/")
        await until(lambda: said == ["first", "last"])
        gate.append("home")
        await finished(there)
        assert len(await records(app.state.tasks)) == 3


async def _enqueued(app: FastAPI, page: str) -> Any:
    token = current.set(app.state.tasks.client)
    try:
        return await refresh.enqueue(page)
    finally:
        current.reset(token)


async def test_a_repeated_request_stores_nothing_anew(app: FastAPI) -> None:
    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> list[str]:
        background_tasks.configure(idempotency_key=True)
        added = [background_tasks.add_task(one_step, text) for text in ("one", "two")]
        await background_tasks.flush()
        return [handle.id for handle in added]

    async with serving(app) as http:
        once = (await http.post("/", headers={"Idempotency-Key": '"abc"'})).json()
        again = (await http.post("/", headers={"idempotency-key": "abc"})).json()
        other = (await http.post("/", headers={"Idempotency-Key": "xyz"})).json()
        without = (await http.post("/")).json()
        assert once == again
        assert len({*once, *other, *without}) == 6
        await until(lambda: sorted(said) == ["one"] * 3 + ["two"] * 3)


async def add_to_the_request(file: UploadFile, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(one_step, "another task")
    background_tasks.add_task(keep, file, "a")


async def enqueue(file: UploadFile) -> None:
    await keep.enqueue(file, "a")


async def enqueue_many(file: UploadFile, request: Request) -> None:
    calls = [keep.call(file, "a"), one_step.call("another task"), keep.call(file, "a")]
    await request.app.state.tasks.enqueue_many(calls)


async def enqueue_chain(file: UploadFile) -> None:
    await chain(keep.call(file, "a"), one_step.call("another task"))


@pytest.mark.parametrize("way", [add_to_the_request, enqueue, enqueue_many, enqueue_chain])
async def test_the_files_of_a_repeated_call_are_deleted_at_once(
    app: FastAPI, tmp_path: Path, way: Callable[..., Awaitable[None]]
) -> None:
    app.post("/")(way)
    async with serving(app) as http:
        for content in (b"first", b"second", b"third"):
            assert (await http.post("/", files={"file": content})).status_code == 200
            assert contents_in(tmp_path / "tasks.db") == [b"first"]
        gate.append("open")
        [kept] = [one for one in await records(app.state.tasks) if one.name == "keep"]
        assert await (await app.state.tasks.get(kept.id)).result(timeout=10) == "first"


async def test_the_files_of_a_repeated_request_are_deleted_at_once(app: FastAPI, tmp_path: Path) -> None:
    @app.post("/")
    async def handler(file: UploadFile, background_tasks: BackgroundTasks) -> None:
        background_tasks.configure(idempotency_key=True)
        for name in ("a", "b"):
            background_tasks.add_task(keep, file, name)

    async with serving(app) as http:
        for content in (b"first", b"second", b"third"):
            sent = await http.post("/", files={"file": content}, headers={"Idempotency-Key": "abc"})
            assert sent.status_code == 200
            assert contents_in(tmp_path / "tasks.db") == [b"first", b"first"]
        gate.append("open")


def contents_in(path: Path) -> list[bytes]:
    """The content of each file in a store."""
    with closing(sqlite3.connect(path)) as connection:
        files = connection.execute("SELECT id FROM afterwards_files ORDER BY id").fetchall()
        chunks = "SELECT content FROM afterwards_chunks WHERE file = ? ORDER BY number"
        return [b"".join(content for [content] in connection.execute(chunks, file)) for file in files]


async def test_a_request_may_say_whose_key_it_is_and_a_task_s_own_key_stays(app: FastAPI) -> None:
    @app.post("/{user}")
    async def handler(user: str, background_tasks: BackgroundTasks) -> list[str]:
        background_tasks.configure(idempotency_key=f"{user}:1")
        added = [background_tasks.add_task(one_step, user), background_tasks.add_task(pay, 5)]
        await background_tasks.flush()
        return [handle.id for handle in added]

    async with serving(app) as http:
        tasks = app.state.tasks
        [ada, paid], [eve, paid_again] = [(await http.post(f"/{user}")).json() for user in ("ada", "eve")]
        assert (await tasks.get(key="ada:1")).id == ada
    assert ada != eve
    assert paid == paid_again


async def test_a_client_s_key_means_one_request_and_not_another_one(app: FastAPI) -> None:
    @app.post("/{path}")
    async def handler(path: str, background_tasks: BackgroundTasks) -> None:
        background_tasks.configure(idempotency_key=True)
        background_tasks.add_task(one_step, path)

    async with serving(app) as http:
        for path in ("a", "b", "a"):
            await http.post(f"/{path}", headers={"Idempotency-Key": "1"})
        await until(lambda: sorted(said) == ["a", "b"])
        assert len(await records(app.state.tasks)) == 2


async def test_two_functions_may_have_the_same_key(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path), worker=False) as tasks:
        paid = await pay.enqueue(7)
        other = await one_step.options(idempotency_key="pay-7").enqueue("mine")
        assert paid.id != other.id
        assert (await tasks.get(key="pay-7", function=pay)).id == paid.id
        with pytest.raises(InvalidOption, match="one_step, pay have a task with this key"):
            await tasks.get(key="pay-7")


async def test_a_renamed_function_knows_its_tasks_of_before(tmp_path: Path) -> None:
    @task(name="before_renaming", unique=True, max_concurrency=1)
    async def before(n: int) -> None: ...

    @task(name="after_renaming", aliases=["before_renamed"], unique=True, max_concurrency=1)
    async def after(n: int) -> None: ...

    assert after.identity == "before_renamed"
    renamed = copy.copy(before)
    renamed.aliases, renamed.name = ["before_renaming"], "after"
    async with working(an_engine(tmp_path), worker=False):
        first = await before.enqueue(1)
        assert (await renamed.enqueue(1)).id == first.id


@pytest.mark.parametrize("option", ["unique", "idempotency_key", "concurrency_key"])
def test_an_empty_key_is_refused_for_it_would_make_all_calls_one(option: str) -> None:
    with pytest.raises(InvalidOption, match=f"{option}=''"):
        one_step.options(**{option: ""})


async def test_what_a_request_s_key_cannot_be_is_refused(app: FastAPI) -> None:
    by_hand = BackgroundTasks()
    with pytest.raises(InvalidOption, match="belong to none"):
        by_hand.configure(idempotency_key=True)
    with pytest.raises(InvalidOption, match="idempotency_key=5"):
        by_hand.configure(idempotency_key=5)


def test_uploads_are_never_the_same() -> None:
    async def keep(file: UploadFile) -> None: ...

    with pytest.raises(InvalidOption, match="two uploads are never the same"):
        task(name="keep_unique", unique=True)(keep)


async def test_a_unique_task_may_be_delayed_and_answers_meanwhile(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        first = await rebuild.options(delay=3600).enqueue("ada", "many changes")
        assert (await rebuild.enqueue("ada", "one more change")).id == first.id
        await first.start_now()
        await finished(first)
        await finished(await rebuild.enqueue("ada", "later"))
    assert said == ["many changes", "later"]


async def test_a_failed_task_answers_for_its_key_until_it_is_requeued(tmp_path: Path) -> None:
    @task(idempotency_key="only-{n}")
    async def fails(n: int) -> None:
        said.append("tried")
        raise ValueError

    async with working(an_engine(tmp_path)) as tasks:
        first = await fails.enqueue(1)
        await finished(first)
        assert (await fails.enqueue(1)).id == first.id
        engine = await tasks.client.open()
        assert len(await engine.requeue([first.id])) == 1
        await until(lambda: said == ["tried", "tried"])


async def test_a_key_that_cannot_be_made_is_an_error_where_the_task_is_added(tmp_path: Path) -> None:
    @task(unique=lambda n: 1 / n)
    async def divides(n: int) -> None: ...

    async with working(an_engine(tmp_path), worker=False) as tasks:
        with pytest.raises(InvalidKey, match=r'task "divides", unique: .*ZeroDivisionError'):
            await divides.enqueue(0)
        assert await records(tasks) == []


@pytest.mark.parametrize("settings", [{"unique": "{nobody}"}, {"idempotency_key": "{"}, {"unique": 5}])
def test_a_key_that_never_could_be_made_is_an_error_where_it_is_declared(settings: dict[str, Any]) -> None:
    async def keyed(n: int) -> None: ...

    with pytest.raises(InvalidOption):
        task(name="keyed_badly", **settings)(keyed)
