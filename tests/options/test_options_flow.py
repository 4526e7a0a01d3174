"""``chain``, ``options(after=...)``, ``expires``, ``rerun_after_crash``, and where they meet."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import Depends, FastAPI

from afterwards import (
    Afterwards,
    BackgroundTasks,
    InvalidOption,
    NotStored,
    Retry,
    State,
    TaskContext,
    TaskFailed,
    chain,
    task,
)
from afterwards.core.lifecycle import EXPIRED
from face.processes import record, uvicorn, write_application
from face.serving import an_engine, finished, records, serving, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

said: list[str] = []


@pytest.fixture(autouse=True)
def afresh() -> None:
    said.clear()


@task
async def step(text: str) -> str:
    said.append(text)
    return text


@task(retries=Retry(2, wait=0.01))
async def stumble(text: str, times: int, ctx: TaskContext = Depends()) -> None:
    said.append(f"{text} {ctx.attempt}")
    if ctx.attempt <= times:
        raise ValueError(text)


@task
async def give_up(text: str) -> None:
    raise ValueError(text)


@task(unique="{text}")
async def once_at_a_time(text: str) -> None:
    said.append(text)


async def test_each_begins_when_the_one_before_it_has_succeeded(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        handles = await chain(step.call("one"), step.call("two"), step.call("three"))
        assert await handles[-1].result(timeout=10) == "three"
    assert said == ["one", "two", "three"]


async def test_a_retry_holds_those_behind_it(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        _, last = await chain(stumble.call("stumbles", 2), step.call("after it"))
        await finished(last)
    assert said == ["stumbles 1", "stumbles 2", "stumbles 3", "after it"]


async def test_failure_reaches_those_behind_visibly(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        first, second, third = await chain(give_up.call("no"), step.call("never"), step.call("neither"))
        with pytest.raises(TaskFailed, match="which comes before it"):
            await third.result(timeout=10)
        ended = [await handle.status() for handle in (second, third)]
    assert [(one.state, one.cause) for one in ended] == [(State.CANCELLED, first.id)] * 2
    assert said == []


async def test_a_cancelled_task_takes_those_behind_it_along(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        first, second = await chain(step.options(delay=60).call("later"), step.call("after it"))
        await first.cancel("not needed")
        assert (await finished(second)).cause == first.id


async def test_a_chain_is_stored_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path), worker=False) as tasks:
        with pytest.raises(TypeError):
            await chain(step.call("one"), step.call(5))
        assert await records(tasks) == []
        assert await chain() == []


async def test_a_unique_task_that_is_there_leaves_the_chain(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        there = await once_at_a_time.options(delay=60).enqueue("there")
        first, answered, last = await chain(step.call("one"), once_at_a_time.call("there"), step.call("two"))
        await finished(last)
        assert answered.id == there.id
        assert (await last.status()).after == first.id
    assert said == ["one", "two"]


async def test_a_call_comes_after_a_task_of_another_request(tmp_path: Path) -> None:
    app = FastAPI()
    tasks = Afterwards(app, an_engine(tmp_path))

    @app.post("/begin")
    async def begin(background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(step.options(delay=3600), "begun").id

    @app.post("/end/{id}")
    async def end(id: str, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(step.options(after=await tasks.get(id)), "ended")
        background_tasks.add_task(step, "apart")

    async with serving(app) as http:
        id = (await http.post("/begin")).json()
        await http.post(f"/end/{id}")
        await until(lambda: said == ["apart"])
        await (await tasks.get(id)).start_now()
        await until(lambda: len(said) == 3)
    assert said == ["apart", "begun", "ended"]


async def test_calls_of_one_request_may_form_a_tree(tmp_path: Path) -> None:
    app = FastAPI()
    Afterwards(app, an_engine(tmp_path), ordered=False)

    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        root = background_tasks.add_task(step.options(delay=0.1), "root")
        background_tasks.add_task(step.options(after=root), "left")
        right = background_tasks.add_task(step.options(after=root), "right")
        background_tasks.add_task(step.options(after=right), "leaf")

    async with serving(app) as http:
        await http.post("/")
        await until(lambda: len(said) == 4)
    assert said[0] == "root"
    assert said.index("leaf") > said.index("right")


async def test_nothing_can_come_after_what_is_not_stored(tmp_path: Path) -> None:
    app = FastAPI()
    Afterwards(app, an_engine(tmp_path), worker=False)
    kept = []

    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        kept.append(background_tasks.add_task(step, "never stored"))
        raise RuntimeError

    @app.post("/after")
    async def after(background_tasks: BackgroundTasks) -> None:
        with pytest.raises(NotStored):
            background_tasks.add_task(step.options(after=kept[0]), "after it")
        with pytest.raises(NotStored):
            await step.options(after=kept[0]).enqueue("after it")

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 500
        assert (await http.post("/after")).status_code == 200


@pytest.mark.parametrize("call", [step, "step", None])
async def test_a_chain_is_of_calls(tmp_path: Path, call: object) -> None:
    async with working(an_engine(tmp_path), worker=False):
        with pytest.raises(InvalidOption, match=r"(f\.call\(x\)|step\.call\(\.\.\.\))"):
            await chain(call)
        with pytest.raises(InvalidOption, match=r"give calls, such as f\.call\(x\)"):
            await chain(step("called already"))


def test_after_is_for_one_call() -> None:
    with pytest.raises(InvalidOption, match="it is no option of @task"):
        task(after=None)


async def test_what_is_put_into_a_chain_takes_its_place_from_that(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        begun = await step.options(delay=0.1).enqueue("begun")
        _, last = await chain(step.options(after=begun).call("one"), step.call("two"))
        await finished(last)
        assert said == ["begun", "one", "two"]
        with pytest.raises(InvalidOption, match="chain: step has the option"):
            await chain(step.call("one"), step.options(after=begun).call("two"))


async def test_a_task_that_was_not_begun_in_time_is_cancelled_and_those_behind_it(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path), worker=False):
        begun = datetime.now(UTC)
        first, second = await chain(step.options(expires=0.05).call("too late"), step.call("after it"))
    await until(lambda: datetime.now(UTC) >= begun + timedelta(seconds=0.05))
    async with working(an_engine(tmp_path)) as tasks:
        ended = [await finished(await tasks.get(handle.id)) for handle in (first, second)]
    assert [(one.state, one.cause) for one in ended] == [(State.CANCELLED, None), (State.CANCELLED, first.id)]
    assert ended[0].reason == EXPIRED
    assert said == []


async def test_a_retry_that_comes_too_late_is_not_begun(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        slow = stumble.options(retries=Retry(3, wait=3, jitter=False), expires=2)
        ended = await finished(await slow.enqueue("stumbles", 9))
    assert (ended.state, ended.reason, len(ended.failures)) == (State.CANCELLED, EXPIRED, 1)


CHARGE = """
    def tell(failed) -> None:
        write(f"told that {failed.name} {failed.kind}")

    @task(rerun_after_crash=False, on_failure=tell)
    def charge() -> None:
        write("charged")
        os._exit(1)

    @app.post("/charge")
    async def add_charge(tasks: BackgroundTasks) -> None:
        tasks.add_task(charge)

    Afterwards(app, lease=0.5)
"""


def test_with_rerun_after_crash_false_a_crash_is_the_end(tmp_path: Path) -> None:
    write_application(tmp_path, CHARGE)
    with uvicorn(tmp_path) as server:
        server.post("/charge")
        server.ends()
    with uvicorn(tmp_path) as server:
        server.says("task failed: charge")
        [charged] = record(tmp_path, "charge")
        assert (charged["state"], charged["kinds"]) == ("failed", ["crashed"])
        server.writes("told that charge crashed")
        assert server.diary().count("charged") == 1
