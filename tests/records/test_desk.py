"""What people ask about tasks, and do to one or to many of them."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI

from afterwards import (
    Afterwards,
    BackgroundTasks,
    InvalidOption,
    NotStored,
    State,
    TaskHandle,
    TaskPage,
    UnknownTask,
    WrongState,
    task,
)
from afterwards.client import steering
from afterwards.core.task import NewTask
from afterwards.engine import Query
from face.diary import fail, note, plain
from face.serving import finished, serving, until, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

NOBODY = "01890000-0000-7000-8000-000000000000"
LATER = note.options(delay=3600)


@task(aliases=["before_it_was_renamed"])
async def renamed(text: str) -> str:
    return text


@pytest.fixture
async def tasks(url: str) -> AsyncIterator[Afterwards]:
    """An installation whose tasks nobody runs."""
    async with working(url, worker=False) as tasks:
        yield tasks


@pytest.fixture
async def served(url: str, said: list[str]) -> AsyncIterator[Afterwards]:
    async with working(url) as tasks:
        yield tasks


def texts(page: TaskPage) -> list[str]:
    return [record.arguments["text"] for record in page]


async def test_a_list_is_newest_first_and_continues_where_it_ended(tasks: Afterwards) -> None:
    for number in range(5):
        await note.enqueue(str(number))
    first = await tasks.list(limit=2)
    assert texts(first) == ["4", "3"]
    assert first.next == first[-1].id
    second = await tasks.list(limit=2, before=first.next)
    third = await tasks.list(limit=2, before=second.next)
    assert (texts(second), texts(third), third.next) == (["2", "1"], ["0"], None)
    assert (await tasks.list(limit=5)).next is None


async def test_a_list_does_not_seem_to_end_where_a_task_was_deleted(tasks: Afterwards) -> None:
    for number in range(4):
        await note.enqueue(str(number))
    first = await tasks.list(limit=2)
    assert first.next
    gone = await tasks.get(first.next)
    await gone.cancel()
    await gone.delete()
    with pytest.raises(UnknownTask, match=first.next):
        await tasks.list(limit=2, before=first.next)


async def test_tasks_are_listed_by_state_name_queue_text_and_time(tasks: Afterwards) -> None:
    await note.options(queue="mail").enqueue("mail")
    await LATER.enqueue("later")
    await renamed.enqueue("renamed")
    await tasks.cancel(queue="mail")
    assert texts(await tasks.list(state="cancelled")) == ["mail"]
    assert texts(await tasks.list(state=[State.CANCELLED, "scheduled"])) == ["later", "mail"]
    assert texts(await tasks.list(name=note)) == ["later", "mail"]
    assert texts(await tasks.list(name=["renamed", note], queue="default")) == ["renamed", "later"]
    assert texts(await tasks.list(queue={"mail", "other"})) == ["mail"]
    assert texts(await tasks.list(text="LATER")) == ["later"]
    assert len(await tasks.list(since=timedelta(hours=1))) == 3
    assert await tasks.list(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert await tasks.list(state=[]) == []
    assert len(await tasks.list(state=None, text="")) == 3


async def test_a_function_stands_for_its_former_names(tasks: Afterwards) -> None:
    await tasks.client.enqueue([NewTask(id=NOBODY, name="before_it_was_renamed", arguments='{"text": "old"}')])
    assert texts(await tasks.list(name=renamed)) == ["old"]
    assert await tasks.list(name="renamed") == []


@pytest.mark.parametrize(
    ("which", "said"),
    [
        (
            {"state": "lost"},
            r"state='lost': give one of waiting, scheduled, queued, running, succeeded",
        ),
        ({"state": ["failed", 5]}, "state=5"),
        ({"name": 5}, "give a task function that @task made, or its name"),
        ({"name": "no name"}, "name 'no name'"),
        ({"queue": "no queue"}, "queue 'no queue'"),
        ({"text": 5}, r"tasks\.list\(text=5\): give text"),
        ({"since": 5}, "give an aware datetime, or a timedelta until now"),
        ({"since": datetime(2026, 1, 1)}, "give an aware datetime"),
        ({"since": timedelta(hours=-1)}, "negative"),
        ({"states": "failed"}, r"there is no such option; did you mean state\?"),
        ({"all": True}, "there is no such option"),
        ({"limit": 0}, "give 1 to 1,000"),
        ({"limit": True}, "give 1 to 1,000"),
        ({"before": 5}, r"tasks\.list\(before=5\): give the `next` of a page"),
    ],
)
async def test_a_list_that_cannot_be_meant_is_refused(tasks: Afterwards, which: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        await tasks.list(**which)


async def test_stats_count_by_state_and_queue(served: Afterwards, said: list[str]) -> None:
    await finished(await note.enqueue("done"))
    await LATER.enqueue("later")
    await note.options(queue="mail", delay=3600).enqueue("mail")
    stats = await served.stats()
    assert stats.states == dict.fromkeys(State, 0) | {State.SUCCEEDED: 1, State.SCHEDULED: 2}
    assert stats.queues == {"default": {State.SUCCEEDED: 1, State.SCHEDULED: 1}, "mail": {State.SCHEDULED: 1}}
    assert stats.oldest is None
    await until_async(lambda: _workers(served))
    await served.pause(note)
    await note.enqueue("paused")
    waits = (await served.stats()).oldest
    assert waits is not None
    assert timedelta() <= waits < timedelta(minutes=1)


async def _workers(tasks: Afterwards) -> bool:
    return (await tasks.stats()).workers == 1


async def test_stats_of_a_store_without_a_worker(tasks: Afterwards) -> None:
    await note.enqueue("waits")
    stats = await tasks.stats()
    assert (stats.workers, stats.states[State.QUEUED]) == (0, 1)


async def test_a_failed_task_is_requeued_through_its_handle(served: Afterwards, said: list[str]) -> None:
    handle = await fail.enqueue("no luck")
    await finished(handle)
    assert (await handle.requeue()).state in (State.QUEUED, State.RUNNING, State.FAILED)
    await until(lambda: said == ["no luck", "no luck"])
    record = await finished(handle)
    assert record.attempt == 2


async def test_a_delayed_task_is_started_now(served: Afterwards, said: list[str]) -> None:
    handle = await LATER.enqueue("now")
    await handle.start_now()
    assert await handle.result(timeout=5) == "now"


async def test_a_finished_task_is_deleted(served: Afterwards, said: list[str]) -> None:
    handle = await note.enqueue("done")
    await finished(handle)
    await handle.delete()
    for ask in (handle.status, handle.requeue, handle.start_now, handle.delete):
        with pytest.raises(UnknownTask):
            await ask()


async def test_what_the_state_does_not_allow_is_refused_with_the_reason(tasks: Afterwards) -> None:
    handle = await note.enqueue("waits")
    for ask, reason in (
        (handle.requeue, "is queued: only a finished task can be requeued"),
        (handle.delete, "is queued: only a finished task can be deleted"),
        (handle.start_now, "is queued: only a scheduled task can be started before its time"),
    ):
        with pytest.raises(WrongState, match=reason):
            await ask()
    unique = note.options(unique="one")
    first = await unique.enqueue("first")
    await first.cancel()
    await unique.enqueue("second")
    with pytest.raises(WrongState, match="is cancelled: it cannot run again while another task has its unique key"):
        await first.requeue()


async def test_before_it_is_stored_nothing_can_be_done(url: str, said: list[str]) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        handle = tasks.add_task(note, "hello")
        for ask in (handle.requeue, handle.start_now, handle.delete):
            with pytest.raises(NotStored):
                await ask()

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200


async def test_many_are_requeued_by_a_filter(served: Afterwards, said: list[str]) -> None:
    handles = [await fail.enqueue(f"no luck {number}") for number in range(3)]
    for handle in handles:
        await finished(handle)
    await finished(await note.enqueue("fine"))
    assert await served.requeue(state="failed", since=timedelta(hours=1), name=fail, text="luck 1") == 1
    await until(lambda: said.count("no luck 1") == 2)
    await finished(handles[1])
    assert await served.requeue(state="failed", since=datetime.now(UTC) + timedelta(minutes=1)) == 0
    assert await served.requeue(state="failed") == 3
    await until(lambda: len(said) == 3 + 1 + 1 + 3)


async def test_many_are_cancelled_started_and_deleted_by_a_filter(tasks: Afterwards) -> None:
    await LATER.enqueue("a")
    await LATER.options(queue="mail").enqueue("b")
    assert await tasks.start_now(queue="mail") == 1
    assert texts(await tasks.list(state="queued")) == ["b"]
    assert await tasks.delete(queue="mail") == 0
    assert await tasks.cancel(queue="mail", reason="no more mail") == 1
    [record] = await tasks.list(queue="mail")
    assert (record.state, record.reason) == (State.CANCELLED, "no more mail")
    assert await tasks.delete(queue="mail") == 1
    assert await tasks.cancel(all=True) == 1
    assert await tasks.delete(all=True) == 1
    assert await tasks.list() == []


@pytest.mark.parametrize("deleted", [[3], [4, 3]], ids=["the last", "all"])
async def test_a_change_goes_on_below_tasks_that_were_deleted_meanwhile(
    tasks: Afterwards, monkeypatch: pytest.MonkeyPatch, deleted: list[int]
) -> None:
    """Retention deletes the last task of a page, or all of them, while the rest is still looked for."""
    monkeypatch.setattr(steering, "MOST_LISTED", 2)
    handles = [await LATER.enqueue(str(number)) for number in range(5)]
    for number in deleted:
        await handles[number].cancel()
    engine = await tasks.client.open()
    found = steering.pages(engine, Query(limit=2))
    first = [task.id for task in await anext(found)]
    assert first == [handles[4].id, handles[3].id]
    await engine.delete([handles[number].id for number in deleted])
    assert [task.id async for page in found for task in page] == [handles[number].id for number in (2, 1, 0)]
    assert await tasks.cancel(all=True) == 5 - len(deleted)


async def test_a_change_goes_on_below_a_page_of_which_nothing_is_left(tasks: Afterwards) -> None:
    handles = [await LATER.enqueue(str(number)) for number in range(6)]
    for handle in handles[2:4]:
        await handle.cancel()
    engine = await tasks.client.open()
    found = steering.pages(engine, Query(limit=2))
    await anext(found)
    assert [task.id for task in await anext(found)] == [handles[3].id, handles[2].id]
    await engine.delete([handles[3].id, handles[2].id])
    assert [task.id async for page in found for task in page] == [handles[1].id, handles[0].id]


Act = Callable[..., Any]


@pytest.mark.parametrize("act", ["requeue", "cancel", "start_now", "delete"])
async def test_without_a_filter_nothing_is_changed(tasks: Afterwards, act: str) -> None:
    handle = await LATER.enqueue("stays")
    do: Act = getattr(tasks, act)
    for nothing in ({}, {"state": None}, {"text": ""}, {"all": False}):
        with pytest.raises(InvalidOption, match=rf"tasks\.{act}\(\) says of no task .*, or all=True for all tasks"):
            await do(**nothing)
    with pytest.raises(InvalidOption, match="leave one of them out"):
        await do(all=True, state="scheduled")
    with pytest.raises(InvalidOption, match="give True"):
        await do(all=1)
    assert await do(state=[]) == 0
    assert (await handle.status()).state is State.SCHEDULED


async def test_a_reason_must_be_text(tasks: Afterwards) -> None:
    with pytest.raises(InvalidOption, match=r"reason=5"):
        await tasks.cancel(all=True, reason=5)  # type: ignore[arg-type]


async def test_the_failure_of_a_plain_function_cannot_run_again(url: str, said: list[str]) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)

    async def broken() -> None:
        raise ValueError("no luck")

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(plain, "fine")
        background_tasks.add_task(broken)

    async with serving(app) as http:
        await http.get("/")
        [record] = await until_async(lambda: tasks.list(state="failed"))
        assert record.plain
        handle: TaskHandle[Any] = await tasks.get(record.id)
        with pytest.raises(WrongState, match="whose arguments are not stored"):
            await handle.requeue()
        assert await tasks.requeue(state="failed") == 0
        assert await tasks.delete(state="failed") == 1
