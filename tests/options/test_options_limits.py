"""``max_concurrency``, ``concurrency_key``, ``rate_limit``, ``max_queued``, pause and resume, in real workers."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.background import BackgroundTask

from afterwards import Afterwards, BackgroundTasks, InvalidOption, QueueFull, Retry, State, task
from afterwards.core.claim import PausedTasks
from face.serving import an_engine, finished, records, serving, until, until_async, working
from options.doing import forget, most, occupy

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

said: list[str] = []


@pytest.fixture(autouse=True)
def afresh() -> None:
    forget()
    said.clear()


@task(max_concurrency=2)
async def two_at_once(text: str) -> None:
    await occupy("two")


@task(max_concurrency=1, concurrency_key="{user}")
async def one_per_user(user: str) -> None:
    await occupy(user)


@task(max_concurrency=1, concurrency_key=lambda user, **_: user.upper())
async def one_per_user_in_capitals(user: str, number: int = 0) -> None:
    await occupy(user.lower())


@task(rate_limit="3/1s")
async def three_a_second() -> None:
    said.append("called")


@task(rate_limit="1/1s")
async def once_in_a_while() -> None: ...


@task(max_concurrency=1, retries=Retry(2, wait=0))
async def dies_twice(text: str) -> None:
    await occupy("dies")
    said.append(text)
    if said.count(text) < 3:
        raise ValueError(text)


@task
async def speak(text: str) -> str:
    said.append(text)
    return text


@task(queue="mail")
async def mail(text: str) -> str:
    said.append(text)
    return text


async def test_no_more_run_at_once_than_allowed(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        handles = [await two_at_once.enqueue(str(number)) for number in range(12)]
        for handle in handles:
            assert (await finished(handle)).state is State.SUCCEEDED
    assert most["two"] == 2


async def test_each_key_has_a_limit_of_its_own(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        handles = [await one_per_user.enqueue(user) for user in ("ada", "eve@example.com") for _ in range(5)]
        handles += [await one_per_user_in_capitals.enqueue(user, number=1) for user in ("bob", "Bob")]
        for handle in handles:
            await finished(handle)
    assert most == {"ada": 1, "eve@example.com": 1, "bob": 1}


async def test_a_limit_holds_through_retries(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        handles = [await dies_twice.enqueue(text) for text in ("a", "b", "c")]
        for handle in handles:
            assert (await finished(handle)).state is State.SUCCEEDED
    assert most["dies"] == 1
    assert len(said) == 9


async def test_a_request_s_limited_tasks_keep_its_order(tmp_path: Path) -> None:
    app = FastAPI()
    Afterwards(app, an_engine(tmp_path))

    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> list[str]:
        added = [background_tasks.add_task(one_per_user, "ada"), background_tasks.add_task(speak, "after")]
        return [handle.id for handle in added]

    async with serving(app) as http:
        for _ in range(3):
            await http.post("/")
        await until(lambda: len(said) == 3)
    assert most["ada"] == 1


async def test_no_more_start_within_a_span_than_its_rate(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)) as tasks:
        for _ in range(7):
            await three_a_second.enqueue()
        await until(lambda: len(said) == 7)
        began = sorted(one.started_at for one in await records(tasks))
    for first, fourth in zip(began, began[3:], strict=False):
        assert (fourth - first).total_seconds() >= 1


async def test_a_rate_that_is_used_up_keeps_no_worker_busy(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)) as tasks:
        handles = [await once_in_a_while.enqueue() for _ in range(2)]
        await finished(handles[0])
        await handles[1].cancel()
        engine = await tasks.client.open()
        claims = Counter[str]()
        claim = engine.claim

        async def counted(*args):
            claims["all"] += 1
            return await claim(*args)

        engine.claim = counted
        began = datetime.now(UTC)
        await until(lambda: datetime.now(UTC) - began > timedelta(seconds=1))
    assert claims["all"] < 20


async def test_what_is_paused_waits_and_is_told_of_and_goes_on(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)) as tasks:
        await tasks.pause(speak, queue="mail")
        assert await tasks.paused() == PausedTasks(queues=frozenset({"mail"}), names=frozenset({"speak"}))
        waiting = [await speak.enqueue("speak"), await mail.enqueue("mail")]
        other = await two_at_once.enqueue("other")
        await finished(other)
        assert said == []
        assert [(await handle.status()).state for handle in waiting] == [State.QUEUED] * 2
        await tasks.resume(speak)
        await finished(waiting[0])
        assert said == ["speak"]
        await tasks.resume(queue="mail")
        await finished(waiting[1])
    assert said == ["speak", "mail"]


async def test_a_pause_outlives_the_process_and_holds_for_tasks_of_requests(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)) as tasks:
        await tasks.pause(speak)
    app = FastAPI()
    tasks = Afterwards(app, an_engine(tmp_path))

    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(speak, "hello").id

    async with serving(app) as http:
        id = (await http.post("/")).json()
        assert (await tasks.client.get(id)).attempt == 0
        await tasks.resume(speak)
        await until(lambda: said == ["hello"])


async def test_a_limited_function_that_is_paused_takes_no_room_of_others(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)) as tasks:
        await tasks.pause(queue="mail")
        held_up = await two_at_once.options(queue="mail", priority=100).enqueue("paused")
        for _ in range(4):
            await finished(await two_at_once.enqueue("goes on"))
        assert (await held_up.status()).state is State.QUEUED
        await tasks.resume(queue="mail")
        await finished(held_up)


@pytest.mark.parametrize("what", [{}, {"queue": "two words"}])
async def test_a_pause_of_nothing_is_refused(tmp_path: Path, what: dict[str, str]) -> None:
    async with working(an_engine(tmp_path), worker=False) as tasks:
        with pytest.raises(InvalidOption):
            await tasks.pause(**what)
        with pytest.raises(InvalidOption, match="is not a task function"):
            await tasks.pause(print)  # type: ignore[arg-type]  # on purpose


async def test_a_full_queue_answers_429_and_stores_nothing_of_the_request(tmp_path: Path) -> None:
    app = FastAPI()
    tasks = Afterwards(app, an_engine(tmp_path), worker=False, max_queued={"mail": 2})

    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(speak, "hello")
        background_tasks.add_task(mail, "hello")

    @app.post("/enqueue")
    async def enqueues() -> None:
        await mail.enqueue("hello")

    @app.post("/late")
    async def late(background_tasks: BackgroundTasks):
        async def stream():
            yield b"begun"
            background_tasks.add_task(mail, "late")

        return StreamingResponse(stream())

    async with serving(app) as http:
        assert [(await http.post("/")).status_code for _ in range(2)] == [200, 200]
        before = len(await records(tasks))
        for refused in (await http.post("/"), await http.post("/enqueue")):
            assert refused.status_code == 429
            assert int(refused.headers["Retry-After"]) > 0
            assert refused.json()["detail"].startswith('queue "mail" is full: 2 tasks wait in it')
        assert len(await records(tasks)) == before
        assert (await http.post("/late")).status_code == 200
        await until_async(lambda: _count(tasks, before + 1))


async def test_what_an_exit_adds_to_a_refused_request_is_stored(tmp_path: Path) -> None:
    app = FastAPI()
    tasks = Afterwards(app, an_engine(tmp_path), worker=False, max_queued={"mail": 1})

    async def audited(background_tasks: BackgroundTasks):
        try:
            yield
        finally:
            background_tasks.add_task(speak, "audit")

    @app.post("/", dependencies=[Depends(audited)])
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(mail, "hello")

    async with serving(app) as http:
        assert [(await http.post("/")).status_code for _ in range(2)] == [200, 429]
        await until_async(lambda: _count(tasks, 3))
        assert [task.name for task in await records(tasks)] == ["mail", "speak", "speak"]


async def test_tasks_made_by_hand_are_refused_with_429_too(tmp_path: Path) -> None:
    app = FastAPI()
    tasks = Afterwards(app, an_engine(tmp_path), worker=False, max_queued=1)

    @app.post("/")
    async def handler():
        return JSONResponse("ok", background=BackgroundTasks([BackgroundTask(speak, "hello")]))

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 200
        assert (await http.post("/")).status_code == 429
        assert len(await records(tasks)) == 1


async def test_outside_a_request_a_full_queue_raises(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path), worker=False, max_queued=1):
        await speak.enqueue("first")
        with pytest.raises(QueueFull, match="default"):
            await speak.enqueue("second")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"max_concurrency": 0}, "max_concurrency=0"),
        ({"rate_limit": "10"}, "rate_limit='10'"),
        ({"concurrency_key": "{text}"}, "limits nothing by itself"),
        ({"max_concurrency": 1, "concurrency_key": "{user}"}, 'no argument "user"; its arguments: text'),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_where_it_is_declared(settings: dict, problem: str) -> None:
    async def limited(text: str) -> None: ...

    with pytest.raises(InvalidOption) as error:
        task(name="limited_badly", **settings)(limited)
    assert problem in str(error.value)


async def _count(tasks: Afterwards, expected: int) -> bool:
    return len(await records(tasks)) == expected
