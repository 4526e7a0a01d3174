"""Values at the edges: refused where they come in, with the parameter's name, or they come out again."""

import json
from collections.abc import AsyncIterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import APIRouter, Body, FastAPI, Request, Response
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from afterwards import Afterwards, BackgroundTasks, InvalidOption, Retry, State, TaskHandle, UnknownTask, task
from afterwards.core.errors import RefusedArgument, RefusedValue
from afterwards.engine import Query
from face.serving import finished, serving, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

WEST, EAST = timezone(timedelta(hours=-14)), timezone(timedelta(hours=14))
LONE = "\ud800"
NOBODY = "00000000-0000-7000-8000-000000000000"
HUGE = pytest.param(10**5000, id="huge")  # has no text: sys.set_int_max_str_digits
JSON = {"content-type": "application/json"}


@task
async def keep_at_the_edge(value: object = None) -> object:
    return value


@task(unique="{text}")
async def keep_one_of_each(text: str) -> None: ...


@task(idempotency_key="{order[id]}")
async def keep_the_order(order: dict[str, str]) -> None: ...


@task(concurrency_key=lambda text: text.strip(), max_concurrency=1)
async def keep_in_turn(text: str) -> None: ...


@task
async def keep_a_number(number: float | str) -> None: ...


@task
async def keep_by_number(counts: dict[float, int]) -> None: ...


@task
async def keep_a_path(path: Path) -> None: ...


@task
async def keep_from_six(number: Annotated[int, Field(gt=5)]) -> None: ...


@task
async def keep_one_of_two(text: Literal["a", "b"]) -> None: ...


class Order(BaseModel):
    number: Annotated[int, Field(gt=5)]


@task
async def keep_an_order(order: Order) -> None: ...


asked_by: ContextVar[Any] = ContextVar("asked_by")


@task
async def fail_oddly(text: str) -> None:
    raise ValueError(chr(int(text, 16)))


class Given(BaseModel):
    """Options that a client chooses."""

    priority: int = 0
    queue: str = "default"
    run_at: datetime | None = None
    timeout: float | None = None
    retries: int = 0
    delay: float | None = None
    expires: float | None = None
    unique: str | None = None
    idempotency_key: str | None = None
    concurrency_key: str | None = None


@pytest.fixture
async def tasks(url: str) -> AsyncIterator[Afterwards]:
    async with working(url) as tasks:
        yield tasks


router = APIRouter()


@router.post("/keep")
async def add(background_tasks: BackgroundTasks, value: Annotated[Any, Body()]) -> None:
    background_tasks.add_task(keep_at_the_edge, value)


@router.post("/six")
async def from_six(background_tasks: BackgroundTasks, value: Annotated[int, Body()]) -> None:
    background_tasks.add_task(keep_from_six, value)


@router.post("/two")
async def one_of_two(value: Annotated[Any, Body()]) -> None:
    await keep_one_of_two.enqueue(value)


@router.post("/built")
async def built(value: Annotated[int, Body()]) -> None:
    await keep_an_order.enqueue(Order.model_construct(number=value))


@router.post("/request-key")
async def with_request_key(background_tasks: BackgroundTasks, value: Annotated[str, Body()]) -> None:
    background_tasks.configure(idempotency_key=value)
    background_tasks.add_task(keep_at_the_edge, 1)


@router.post("/at")
async def at(background_tasks: BackgroundTasks, value: Annotated[datetime, Body()]) -> None:
    background_tasks.add_task(keep_at_the_edge.options(run_at=value))


@router.post("/in")
async def delayed(value: Annotated[float, Body()]) -> None:
    await keep_at_the_edge.options(delay=value).enqueue()


@router.post("/options")
async def with_options(background_tasks: BackgroundTasks, given: Given) -> None:
    background_tasks.add_task(keep_at_the_edge.options(**given.model_dump(exclude_unset=True)))


@router.post("/retry")
async def with_retry(background_tasks: BackgroundTasks, wait: Annotated[float, Body(embed=True)]) -> None:
    background_tasks.add_task(keep_at_the_edge.options(retries=Retry(3, wait=wait)))


@router.post("/unique")
async def unique(background_tasks: BackgroundTasks, value: Annotated[str, Body()]) -> None:
    background_tasks.add_task(keep_one_of_each, value)


@router.post("/order")
async def order(value: Annotated[dict[str, str], Body()]) -> None:
    await keep_the_order.enqueue(value)


@router.post("/turn")
async def in_turn(background_tasks: BackgroundTasks, value: Annotated[str, Body()]) -> None:
    background_tasks.add_task(keep_in_turn, value)


@router.post("/number")
async def number(background_tasks: BackgroundTasks, value: Annotated[float, Body()]) -> None:
    background_tasks.add_task(keep_a_number, value)


@router.post("/numbers")
async def numbers(background_tasks: BackgroundTasks, value: Annotated[dict[float, int], Body()]) -> None:
    background_tasks.add_task(keep_by_number, value)


@router.post("/path")
async def a_path(background_tasks: BackgroundTasks, value: Annotated[Path, Body()]) -> None:
    background_tasks.add_task(keep_a_path, value)


@router.post("/context")
async def context(background_tasks: BackgroundTasks, value: Annotated[Any, Body()]) -> None:
    asked_by.set(value)
    background_tasks.add_task(keep_at_the_edge)


@router.post("/by_hand")
async def by_hand(value: Annotated[Any, Body()]) -> Response:
    tasks = BackgroundTasks()
    tasks.tasks.append(BackgroundTask(keep_at_the_edge, value))
    return Response(background=tasks)


@router.post("/appended")
async def appended(background_tasks: BackgroundTasks, value: Annotated[Any, Body()]) -> None:
    background_tasks.tasks.append(BackgroundTask(keep_at_the_edge, value))


@router.post("/cancel")
async def cancel(reason: Annotated[str, Body()]) -> str:
    handle = await keep_at_the_edge.options(delay=3600).enqueue()
    return (await handle.cancel(reason)).reason or ""


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(router)
    tasks = Afterwards(app, url, propagate=[asked_by])

    @app.post("/pause")
    async def pause(value: Annotated[str, Body()]) -> None:
        await tasks.pause(queue=value)

    @app.post("/list")
    async def listed(which: dict[str, Any]) -> None:
        if "since" in which:
            which["since"] = datetime.fromisoformat(which["since"])
        await tasks.list(**which)

    @app.post("/requeue")
    async def requeue(state: Annotated[Any, Body()]) -> None:
        await tasks.requeue(state=state)

    @app.post("/result")
    async def result(value: Annotated[float, Body()]) -> None:
        handle = TaskHandle(NOBODY, tasks.client, json.loads)
        await handle.result(timeout=value)

    @app.get("/status")
    async def status(id: str) -> str:
        return (await (await tasks.get(id)).status()).state

    @app.delete("/status")
    async def stop(id: str) -> None:
        await TaskHandle(id, tasks.client, json.loads).cancel()

    @app.get("/key")
    async def with_key(key: str) -> str:
        return (await tasks.get(key=key)).id

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
        ("/keep", "NaN", "value"),
        ("/keep", '{"deep": [-Infinity]}', "value"),
        ("/keep", "[" * 250 + "]" * 250, "value"),
        ("/keep", '{"a":' * 500 + "1" + "}" * 500, "value"),
        ("/number", "NaN", "number"),
        ("/numbers", '{"nan": 1}', "counts"),
        ("/path", r'"\ud800"', "path"),
        ("/context", "NaN", "asked_by"),
        ("/by_hand", "NaN", "value"),
        ("/appended", "NaN", "value"),
        ("/options", '{"priority": 101}', "priority"),
        ("/options", '{"queue": "my queue"}', "queue"),
        ("/options", '{"queue": ""}', "queue"),
        ("/options", '{"run_at": "2026-01-01T00:00:00"}', "run_at"),
        ("/options", '{"timeout": 0}', "timeout"),
        ("/options", '{"retries": -1}', "retries"),
        ("/options", '{"delay": 2, "expires": 1}', "expires"),
        ("/options", '{"unique": ""}', "unique"),
        ("/options", '{"idempotency_key": ""}', "idempotency_key"),
        ("/options", '{"concurrency_key": ""}', "concurrency_key"),
        ("/retry", '{"wait": 1e300}', "retries"),
        ("/retry", '{"wait": -1}', "retries"),
        ("/unique", '""', "unique"),
        ("/order", "{}", "idempotency_key"),
        ("/order", '{"id": ""}', "idempotency_key"),
        ("/turn", '" "', "concurrency_key"),
        ("/six", "1", "number"),
        ("/two", '"c"', "text"),
        ("/built", "1", "order"),
        ("/request-key", '""', "idempotency_key"),
        ("/pause", '"my queue"', "queue"),
        ("/result", "-1", "timeout"),
        ("/list", '{"limit": 0}', "limit"),
        ("/list", '{"limit": 100000}', "limit"),
        ("/list", '{"state": "done"}', "state"),
        ("/list", '{"since": "2026-01-01T00:00:00"}', "since"),
        ("/requeue", '["failed", "done"]', "state"),
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


async def test_a_task_that_is_not_stored_is_not_found(http: httpx.AsyncClient) -> None:
    for id in (NOBODY, "x", "%00", "%ED%A0%80", "9" * 5000):
        for method, path in (("GET", "/status?id"), ("DELETE", "/status?id"), ("GET", "/key?key")):
            answer = await http.request(method, f"{path}={id}")
            assert (answer.status_code, answer.json()["detail"][:15]) == (404, "no task has the")


@pytest.mark.parametrize("early", [True, False])
async def test_an_answer_of_the_applications_own_counts(url: str, early: bool) -> None:
    async def own(request: Request, error: Exception) -> Response:
        return Response(status_code=410)

    app = FastAPI(exception_handlers={UnknownTask: own} if early else {})
    tasks = Afterwards(app, url)
    if not early:
        app.add_exception_handler(UnknownTask, own)

    @app.get("/{id}")
    async def get(id: str) -> None:
        await tasks.get(id)

    async with serving(app) as http:
        assert (await http.get(f"/{NOBODY}")).status_code == 410


async def test_an_error_of_the_code_is_none_of_the_client(url: str) -> None:
    app = FastAPI()
    Afterwards(app, url)
    wrong: list[Any] = [{1: 2}, {"made by code"}, itself := [], object()]
    itself.append(itself)

    @app.post("/argument/{number}")
    async def argument(background_tasks: BackgroundTasks, number: int) -> None:
        background_tasks.add_task(keep_at_the_edge, wrong[number])

    @app.post("/type")
    async def another_type(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(keep_from_six, "six")  # type: ignore[arg-type]

    @app.post("/option")
    async def option(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(keep_at_the_edge.options(priority="high"))  # type: ignore[typeddict-item]

    @app.post("/key")
    async def key(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(keep_at_the_edge.options(unique=lambda value: 1 / 0))

    async with serving(app) as http:
        for number in range(len(wrong)):
            assert (await http.post(f"/argument/{number}")).status_code == 500
        assert (await http.post("/type")).status_code == 500
        assert (await http.post("/option")).status_code == 500
        assert (await http.post("/key")).status_code == 500


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
