"""``await f.enqueue(...)``, ``f.enqueue_sync(...)`` and ``f.options(...)``."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, NotInstalled, Retry, State, TaskHandle, task
from afterwards.core.errors import InvalidOption
from afterwards.core.task import Task
from afterwards.engine import Query
from face.diary import fail, note, note_in_thread, take
from face.diary import said as the_diary
from face.processes import output, run, uvicorn, write_application
from face.serving import serving, until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task
def enqueues_from_its_thread(text: str) -> None:
    note.enqueue_sync(text)


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    app.state.tasks = Afterwards(app, url)
    return app


async def stored(app: FastAPI) -> list[Task]:
    engine = await app.state.tasks.client.open()
    return list(reversed(await engine.find(Query())))


async def test_it_starts_while_the_request_still_goes_on(app: FastAPI) -> None:
    @app.get("/")
    async def handler() -> str:
        handle = await note.enqueue("hello")
        return await handle.result(timeout=5)

    async with serving(app) as http:
        assert (await http.get("/")).json() == "hello"


async def test_it_is_stored_when_it_returns(app: FastAPI) -> None:
    @app.get("/")
    async def handler() -> str:
        handle = await note.options(delay=60).enqueue("hello")
        assert (await handle.status()).state is State.SCHEDULED
        return handle.id

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        [task] = await stored(app)
        assert (task.name, task.origin) == ("note", "GET /")


async def test_it_runs_although_the_handler_raises(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler() -> None:
        await note.enqueue("hello")
        raise RuntimeError("afterwards")

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 500
        await until(lambda: said == ["hello"])


async def test_it_waits_for_nothing_that_the_request_added(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "added")
        await (await note.enqueue("enqueued")).result(timeout=5)

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: said == ["enqueued", "added"])


async def test_outside_a_request_the_only_installation_that_is_open_is_used(app: FastAPI) -> None:
    async with serving(app):
        assert await (await note.enqueue("hello")).result(timeout=5) == "hello"


async def test_outside_a_request_two_installations_are_one_too_many(app: FastAPI) -> None:
    other = FastAPI()
    Afterwards(other, "memory://one-too-many")
    async with serving(app), serving(other):
        with pytest.raises(NotInstalled, match="2 installations"):
            await note.enqueue("hello")


@contextmanager
def collections() -> Iterator[list[int]]:
    """The full collections of garbage that somebody asks for meanwhile: by itself there is none."""
    found: list[int] = []

    def note_one(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            found.append(info["generation"])

    gc.disable()
    gc.callbacks.append(note_one)
    try:
        yield found
    finally:
        gc.callbacks.remove(note_one)
        gc.enable()


async def test_beside_a_second_installation_no_garbage_is_collected_for_each_call(app: FastAPI) -> None:
    other = FastAPI()
    Afterwards(other, "memory://no-garbage")
    async with serving(app):
        await note.enqueue("hello")
        with collections() as collected:
            for _ in range(3):
                await note.enqueue("hello")
    assert collected == []


async def test_a_new_installation_is_looked_at_once(app: FastAPI) -> None:
    async with serving(app):
        await note.enqueue("hello")
        other = FastAPI()
        Afterwards(other, "memory://looked-at-once")
        with collections() as collected:
            for _ in range(3):
                await note.enqueue("hello")
    assert len(collected) <= 1


async def test_an_installation_that_nobody_uses_any_more_is_no_candidate(app: FastAPI) -> None:
    """Neither one that was open until the last call, and was never closed."""
    other: FastAPI | None = FastAPI()
    tasks: Afterwards | None = Afterwards(other, "memory://out-of-use")
    async with serving(app):
        assert tasks is not None
        await tasks.client.open()
        with pytest.raises(NotInstalled, match="2 installations"):
            await note.enqueue("hello")
        other = tasks = None
        assert await (await note.enqueue("hello")).result(timeout=5) == "hello"


def test_without_an_installation_it_names_the_missing_line(tmp_path: Path) -> None:
    ran = run(
        """
        from afterwards import task

        @task
        async def note(text: str) -> None: ...

        note.enqueue_sync("hello")
        """,
        tmp_path,
    )
    assert ran.returncode == 1
    assert "NotInstalled" in ran.stderr
    assert "tasks = Afterwards(app)" in ran.stderr


async def test_enqueue_sync_raises_on_a_running_event_loop_and_names_the_other_way(app: FastAPI) -> None:
    async with serving(app):
        with pytest.raises(RuntimeError, match=r"await note\.enqueue"):
            note.enqueue_sync("hello")


async def test_enqueue_sync_works_in_an_endpoint_that_is_no_coroutine(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    def handler() -> str:
        return note.enqueue_sync("hello").id

    async with serving(app) as http:
        ids = [(await http.get("/")).json() for _ in range(10)]
        await until(lambda: said == ["hello"] * 10)
        assert sorted(ids) == sorted(task.id for task in await stored(app))


async def test_enqueue_sync_works_in_a_task_that_is_no_coroutine(app: FastAPI, said: list[str]) -> None:
    async with serving(app):
        await enqueues_from_its_thread.enqueue("hello")
        await until(lambda: said == ["hello"])


async def test_enqueue_sync_works_in_any_thread(app: FastAPI, said: list[str]) -> None:
    handles: list[TaskHandle[str]] = []
    async with serving(app):
        threads = [
            threading.Thread(target=lambda: handles.append(note_in_thread.enqueue_sync("hello"))) for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        await until(lambda: len(handles) == 20)
        assert [await handle.result(timeout=5) for handle in handles] == ["hello"] * 20


async def test_enqueue_works_on_the_event_loop_of_another_thread(app: FastAPI, said: list[str]) -> None:
    async def elsewhere() -> str:
        return await (await note.enqueue("hello")).result(timeout=5)

    async with serving(app):
        assert await asyncio.to_thread(asyncio.run, elsewhere()) == "hello"


async def test_a_handle_can_cancel_from_another_thread(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url, lease=0.3)  # the worker hears of it by its heartbeat
    async with serving(app):
        handle = await take.enqueue(60, "long")
        await until(lambda: said == ["long began"])
        await asyncio.to_thread(lambda: asyncio.run(cancelled(handle)))
        assert (await until_finished(handle)).state is State.CANCELLED


async def cancelled(handle: TaskHandle[Any]) -> None:
    await handle.cancel("from a thread")


async def until_finished(handle: TaskHandle[Any]) -> Task:
    with pytest.raises(Exception, match="cancelled"):
        await handle.result(timeout=20)
    return await handle.status()


def test_a_script_enqueues_and_a_server_runs_it(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app)")
    script = """
        import main
        handle = main.note.enqueue_sync("one")
        main.note.options(priority=5).enqueue_sync("two")
        print(handle.id)
        """
    assert len(output(script, tmp_path)) == len("01890000-0000-7000-8000-000000000000\n")
    with uvicorn(tmp_path) as server:
        server.writes("one", "two")


async def test_options_make_a_copy(app: FastAPI) -> None:
    changed = note.options(priority=5, queue="mail")
    assert (changed.settings.priority, changed.settings.queue) == (5, "mail")
    assert (note.settings.priority, note.settings.queue) == (0, "default")
    assert changed.options(delay=1).settings.priority == 5
    assert changed.name == note.name


async def test_options_that_do_not_exist_are_refused() -> None:
    for wrong in ({"prio": 5}, {"name": "other"}, {"on_failure": print}):
        with pytest.raises(InvalidOption, match=r"no such option|is for a function"):
            note.options(**wrong)  # type: ignore[arg-type]


async def test_each_option_of_a_call_reaches_the_record(app: FastAPI) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    async with serving(app):
        await note.options(run_at=soon, queue="mail", priority=-7, retention=60).enqueue("x")
        await note.options(delay=timedelta(hours=2)).enqueue("x")
        at, delayed = await stored(app)
    assert (at.run_at, at.queue, at.priority, at.retention) == (soon, "mail", -7, timedelta(minutes=1))
    assert delayed.run_at is not None
    assert abs(delayed.run_at - delayed.created_at - timedelta(hours=2)) < timedelta(seconds=1)


async def test_options_can_be_added_to_a_request(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(note.options(delay=0.05), "later")
        tasks.add_task(note.options(priority=5), text="now")

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: said == ["now", "later"])


async def test_retries_of_a_call_count_instead_of_the_functions(app: FastAPI, said: list[str]) -> None:
    async with serving(app):
        handle = await fail.options(retries=Retry(2, wait=0)).enqueue("again")
        await until(lambda: len(said) == 3)
        with pytest.raises(Exception, match="attempt 3"):
            await handle.result(timeout=5)
    assert the_diary == ["again"] * 3


async def test_a_timeout_of_a_call_counts_instead_of_the_functions(app: FastAPI, said: list[str]) -> None:
    async with serving(app):
        handle = await take.options(timeout=0.05).enqueue(60, "long")
        with pytest.raises(Exception, match="timeout"):
            await handle.result(timeout=5)
