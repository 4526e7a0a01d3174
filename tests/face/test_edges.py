"""Values at the edges: refused where they come in, with the parameter's name, or they come out again."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Body, FastAPI

from afterwards import Afterwards, BackgroundTasks, InvalidOption, Retry, State, task
from afterwards.core.errors import RefusedArgument, RefusedValue
from afterwards.engine import Query
from face.serving import finished, serving, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

WEST, EAST = timezone(timedelta(hours=-14)), timezone(timedelta(hours=14))
LONE = "\ud800"
HUGE = pytest.param(10**5000, id="huge")  # has no text: sys.set_int_max_str_digits
JSON = {"content-type": "application/json"}


@task
async def keep_at_the_edge(value: object = None) -> object:
    return value


@task
async def fail_oddly(text: str) -> None:
    raise ValueError(chr(int(text, 16)))


@pytest.fixture
async def tasks(url: str) -> AsyncIterator[Afterwards]:
    async with working(url) as tasks:
        yield tasks


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.post("/keep")
    async def add(background_tasks: BackgroundTasks, value: Annotated[Any, Body()]) -> None:
        background_tasks.add_task(keep_at_the_edge, value)

    @app.post("/at")
    async def at(background_tasks: BackgroundTasks, value: Annotated[datetime, Body()]) -> None:
        background_tasks.add_task(keep_at_the_edge.options(run_at=value))

    @app.post("/in")
    async def delayed(value: Annotated[float, Body()]) -> None:
        await keep_at_the_edge.options(delay=value).enqueue()

    @app.post("/cancel")
    async def cancel(reason: Annotated[str, Body()]) -> str:
        handle = await keep_at_the_edge.options(delay=3600).enqueue()
        return (await handle.cancel(reason)).reason or ""

    @app.get("/count")
    async def count() -> int:
        return len(await (await tasks.client.open()).find(Query()))

    async with serving(app) as http:
        yield http


@pytest.mark.parametrize(
    ("path", "content", "parameter"),
    [
        ("/keep", r'"\ud800"', "value"),
        ("/keep", r'{"deep": ["\udfff"]}', "value"),
        ("/keep", r'{"\ud800": 1}', "value"),
        ("/at", '"9999-12-31T23:59:59-14:00"', "run_at"),
        ("/at", '"9999-12-31T23:59:59+14:00"', "run_at"),
        ("/at", '"0001-01-01T00:00:00+14:00"', "run_at"),
        ("/in", "1e300", "delay"),
        ("/in", "-1", "delay"),
        ("/cancel", r'"\ud800"', "reason"),
    ],
)
async def test_a_value_that_cannot_be_stored_is_answered_with_422_and_its_parameter(
    http: httpx.AsyncClient, path: str, content: str, parameter: str
) -> None:
    answer = await http.post(path, content=content, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert [fault["loc"] for fault in answer.json()["detail"]] == [[parameter]]
    assert "retry-after" not in answer.headers
    assert (await http.get("/count")).json() == (1 if path == "/cancel" else 0)


async def test_a_path_that_is_no_unicode_and_odd_but_storable_values_are_stored(http: httpx.AsyncClient) -> None:
    for content in (r'"a\u0000b"', '"\\ud83d\\ude00"', f"1{'0' * 400}", '"9998-12-31T23:59:59-14:00"'):
        assert (await http.post("/keep?x=%ED%A0%80", content=content, headers=JSON)).status_code == 200
    assert (await http.post("/cancel", content=r'"a\u0000b"', headers=JSON)).json() == "a\0b"


@pytest.mark.parametrize("instant", [datetime.max, datetime.min])
@pytest.mark.parametrize("zone", [UTC, WEST, EAST])
def test_an_instant_at_the_edge_of_the_calendar_is_refused(instant: datetime, zone: timezone) -> None:
    with pytest.raises(RefusedValue, match=r"^run_at=.* is too far away"):
        keep_at_the_edge.options(run_at=instant.replace(tzinfo=zone))


@pytest.mark.parametrize("option", ["delay", "expires", "retention", "timeout"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 10**400, HUGE, timedelta.max, "5", True])
def test_a_span_that_is_none_is_refused_by_name(option: Any, value: object) -> None:
    with pytest.raises(InvalidOption, match=f"^{option}=") as refused:
        keep_at_the_edge.options(**{option: value})
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, 10**400, "1", True, None])
@pytest.mark.parametrize("name", ["wait", "factor", "max_wait"])
def test_a_number_of_a_retry_that_is_none_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=name):
        Retry(1, **{name: value})


@pytest.mark.parametrize("value", [HUGE, 1.5])
def test_a_huge_number_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidOption, match=r"^retries="):
        keep_at_the_edge.options(retries=value)
    with pytest.raises(InvalidOption, match=r"^priority="):
        keep_at_the_edge.options(priority=value)


async def test_half_a_surrogate_pair_is_refused_wherever_text_comes_in(tasks: Afterwards) -> None:
    for value in (LONE, [LONE], {LONE: 1}, {"a": {"b": LONE}}):
        with pytest.raises(RefusedArgument, match='parameter "value"'):
            await keep_at_the_edge.enqueue(value)
    handle = await keep_at_the_edge.options(unique=LONE, idempotency_key=LONE, delay=3600).enqueue()
    assert (await tasks.get(key=LONE)).id == handle.id
    with pytest.raises(RefusedValue, match=r"^reason=.* is not valid Unicode"):
        await handle.cancel(LONE)
    with pytest.raises(InvalidOption, match=r"cancel\(reason=5\)"):
        await handle.cancel(5)  # type: ignore[arg-type]
    assert (await handle.status()).state is State.SCHEDULED
    assert len((await handle.cancel("x" * 1_000_000)).reason or "") < 70_000


async def test_an_exception_whose_text_is_no_unicode_is_recorded(tasks: Afterwards) -> None:
    task = await finished(await fail_oddly.enqueue("d800"))
    assert task.state is State.FAILED
    assert (task.failures[-1].type, task.failures[-1].message) == ("ValueError", "?")


async def test_an_id_that_is_no_text_is_refused(tasks: Afterwards) -> None:
    for wrong in (5, b"5", 1.5):
        with pytest.raises(InvalidOption, match=r"tasks\.get"):
            await tasks.get(wrong)  # type: ignore[arg-type]
