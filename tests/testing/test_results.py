"""In test mode a task whose result is awaited runs meanwhile, as in production, or an error says why not."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient

from afterwards import NotFinished, TaskFailed, TaskHandle, task
from afterwards.core.errors import WaitsForItself
from afterwards.testing import allow_retries, drain
from testing.application import app, tasks

pytestmark = pytest.mark.timeout(20)

ran: list[str] = []


@task
async def double(n: int) -> int:
    ran.append(f"double {n}")
    return 2 * n


@task
async def double_twice(n: int) -> int:
    return await (await double.enqueue(await (await double.enqueue(n)).result())).result()


@task
def double_in_a_thread(n: int) -> int:
    async def doubled() -> int:
        return await (await double.enqueue(n)).result()

    return asyncio.run(doubled())


@task(retries=1)
async def broken(n: int) -> int:
    raise ValueError(f"{n} is wrong")


@task
async def hopeless(n: int) -> int:
    raise ValueError(f"{n} is wrong")


@task
async def delegates(n: int) -> int:
    return await (await double.options(delay=60).enqueue(n)).result()


@task
async def endless() -> None:
    await asyncio.Event().wait()


@task
async def waits_for_the_waiting(id: str) -> None:
    await (await tasks.get(id)).result()


@task
async def in_a_circle(n: int) -> None:
    await (await waits_for_the_waiting.enqueue(mine[0].id)).result()


mine: list[TaskHandle[Any]] = []

FUNCTIONS = {one.name: one for one in (double, double_twice, double_in_a_thread, broken, hopeless, delegates)}


@app.post("/result/{name}/{n}")
async def result(name: str, n: int, delay: float = 0, timeout: float | None = None) -> int:
    handle = await FUNCTIONS[name].options(delay=timedelta(seconds=delay)).enqueue(n)
    try:
        return await handle.result(timeout=timeout)
    except (TaskFailed, NotFinished) as error:
        raise HTTPException(502, str(error)) from error


@app.get("/of/{id}")
async def of(id: str) -> Any:
    return await (await tasks.get(id)).result()


@app.get("/of/{id}/ran")
async def of_and_ran(id: str) -> Any:
    return await of(id), ran


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@pytest.fixture
def client() -> TestClient:
    return TestClient(app)


@pytest.mark.parametrize(
    ("name", "expected"), [("double", 10), ("double_twice", 20), ("double_in_a_thread", 10)], ids=lambda value: value
)
def test_a_handler_gets_the_result(client: TestClient, name: str, expected: int) -> None:
    assert client.post(f"/result/{name}/5").json() == expected


def test_a_handler_gets_the_result_of_a_task_that_a_test_has_added(client: TestClient) -> None:
    handle = double.enqueue_sync(1)
    assert client.get(f"/of/{handle.id}").json() == 2


@pytest.mark.anyio
async def test_a_test_gets_the_result() -> None:
    assert await (await double.enqueue(1)).result() == 2
    assert await (await double_twice.enqueue(1)).result(timeout=10) == 4


@pytest.mark.anyio
async def test_results_are_awaited_side_by_side() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        got = await asyncio.gather(*(client.post(f"/result/double_twice/{n}") for n in range(4)))
    assert [one.json() for one in got] == [0, 4, 8, 12]


def test_only_what_is_due_before_the_awaited_task_runs_meanwhile(client: TestClient) -> None:
    double.enqueue_sync(1)
    handle = double.enqueue_sync(2)
    double.enqueue_sync(3)
    assert client.get(f"/of/{handle.id}/ran").json() == [4, ["double 1", "double 2"]]
    assert ran == ["double 1", "double 2", "double 3"]


def test_the_failure_of_an_awaited_task_is_its_callers(client: TestClient) -> None:
    answer = client.post("/result/hopeless/5")
    assert answer.status_code == 502 and "ValueError: 5 is wrong" in answer.text


def test_the_failure_of_another_task_that_ran_meanwhile_is_raised(client: TestClient) -> None:
    hopeless.enqueue_sync(5)
    handle = double.enqueue_sync(1)
    with pytest.raises(ValueError, match="5 is wrong"):
        client.get(f"/of/{handle.id}")
    assert client.get(f"/of/{handle.id}").json() == 2


@pytest.mark.anyio
async def test_it_is_raised_into_a_test_that_awaits_a_result_itself() -> None:
    await hopeless.enqueue(5)
    handle = await double.enqueue(1)
    with pytest.raises(ValueError, match="5 is wrong"):
        await handle.result()
    assert await handle.result() == 2


def test_an_awaited_task_that_would_be_retried_raises_into_the_test(client: TestClient) -> None:
    with pytest.raises(ValueError, match="5 is wrong"):
        client.post("/result/broken/5")
    with allow_retries(), pytest.raises(RuntimeError, match=r"waits for the result of broken .*, which is scheduled"):
        client.post("/result/broken/5")


def test_a_task_that_is_not_due_is_named_with_who_waits_for_it(client: TestClient) -> None:
    with pytest.raises(RuntimeError, match=r"POST /result/double/5 waits for the result of double .*drain"):
        client.post("/result/double/5?delay=60")
    with pytest.raises(RuntimeError, match=r"delegates \(.*\) waits for the result of double"):
        delegates.enqueue_sync(5)
        drain()


@pytest.mark.anyio
async def test_a_task_whose_attempt_was_cancelled_with_its_caller_is_named() -> None:
    handle = await endless.enqueue()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await handle.result()
    with pytest.raises(RuntimeError, match=r"the test waits for the result of endless .*, which is running"):
        await handle.result()


def test_a_caller_with_a_timeout_is_told_when_it_is_over(client: TestClient) -> None:
    answer = client.post("/result/double/5?delay=60&timeout=0.05")
    assert answer.status_code == 502 and "has not finished within" in answer.text


def test_tasks_that_wait_for_each_other_are_told() -> None:
    mine[:] = [in_a_circle.enqueue_sync(1)]
    with pytest.raises((WaitsForItself, TaskFailed), match="would wait for ever"):
        drain()
