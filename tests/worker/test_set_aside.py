"""Tasks that other code has set aside: a worker runs those that it can read, and tells once of the others."""

from datetime import UTC, datetime, timedelta

import pytest

from afterwards import task
from afterwards.client.ids import randomness
from afterwards.core.retry import Retry
from afterwards.core.settling import SetAside, settle
from afterwards.core.task import NewTask, State, task_id
from afterwards.engine import Claim, Engine
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.worker import set_aside
from face.serving import until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

NAMES = frozenset({"greet", "unknown"})


@task
async def greet(name: str) -> str:
    return f"hello {name}"


async def put_aside(engine: Engine, *calls: tuple[str, str]) -> list[str]:
    """Store calls, and set them aside as code that cannot read them does. Returns their ids."""
    now = datetime.now(UTC)
    new = [NewTask(id=task_id(now, randomness.take(10)), name=name, arguments=text) for name, text in calls]
    await engine.enqueue(new)
    claimed = await engine.claim(Claim(worker="other", limit=len(new), lease=timedelta(minutes=1), names=NAMES))
    outcome = SetAside("this code cannot read it")
    await engine.finish([settle(one, outcome, Retry(), worker="other", now=now, random=0) for one in claimed])
    return [one.id for one in new]


async def test_what_this_code_can_read_is_run_and_the_rest_waits(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_aside, "AT_ONCE", 2)  # the review reads several times
    async with SQLiteEngine(url.removeprefix("sqlite:///")) as engine:
        fits = ("greet", '{"name": "ada"}')
        ids = await put_aside(engine, ("unknown", "{}"), fits, ("greet", '{"nickname": "ada"}'), fits, fits)

        async def all_have_run() -> bool:
            return [one.state for one in await engine.get(ids)].count(State.SUCCEEDED) == 3

        async with working(url):
            await until_async(all_have_run)
        left = [one for one in await engine.get(ids) if one.state is not State.SUCCEEDED]
    assert [(one.name, one.state, one.set_aside) for one in left] == [
        (name, State.QUEUED, "this code cannot read it") for name in ("unknown", "greet")
    ]
    [told] = [record.getMessage() for record in caplog.records if "task set aside" in record.getMessage()]
    assert 'parameter "name": it has no default' in told
