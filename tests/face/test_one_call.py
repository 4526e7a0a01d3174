"""One call is one task, which runs once, in however many lists it stands."""

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import fastapi
import pytest
from fastapi import FastAPI, Response, WebSocket
from starlette.background import BackgroundTask

from afterwards import Afterwards, BackgroundTasks, State
from face.diary import note, plain
from face.serving import records, serving, until, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.fixture
def app() -> FastAPI:
    return FastAPI()


@pytest.fixture
def tasks(app: FastAPI, url: str) -> Afterwards:
    return Afterwards(app, url)


def joined(injected: BackgroundTasks) -> Any:
    other = BackgroundTasks()
    other.add_task(note, "other")
    return BackgroundTasks([*injected.tasks, *other.tasks])


def extended(injected: BackgroundTasks) -> Any:
    other = BackgroundTasks()
    other.add_task(note, "other")
    other.tasks.extend(injected.tasks)
    return other


def added_again(injected: BackgroundTasks) -> Any:
    injected.add_task(note, "other")
    other = BackgroundTasks()
    for call in injected.tasks:
        handle = other.add_task(call)
        assert handle is call.handle  # type: ignore[attr-defined]
    return other


def twice_in_one_list(injected: BackgroundTasks) -> Any:
    injected.add_task(note, "other")
    injected.tasks.extend(list(injected.tasks))
    return None


def copied(injected: BackgroundTasks) -> Any:
    injected.add_task(note, "other")
    return BackgroundTasks([copy.copy(call) for call in injected.tasks])


def deeply_copied(injected: BackgroundTasks) -> Any:
    injected.add_task(note, "other")
    return BackgroundTasks(copy.deepcopy(injected.tasks))


def in_a_task_of_starlettes(injected: BackgroundTasks) -> Any:
    injected.add_task(note, "other")
    return BackgroundTasks([BackgroundTask(call) for call in injected.tasks])


def in_a_list_of_fastapis(injected: BackgroundTasks) -> Any:
    injected.add_task(note, "other")
    return fastapi.BackgroundTasks([*injected.tasks, BackgroundTask(injected.tasks[0])])


def moved_to_a_list_of_fastapis(injected: BackgroundTasks) -> Any:
    injected.add_task(note, "other")
    moved = fastapi.BackgroundTasks(list(injected.tasks))
    injected.tasks.clear()
    return moved


@pytest.mark.parametrize(
    "combine",
    [
        joined,
        extended,
        added_again,
        twice_in_one_list,
        copied,
        deeply_copied,
        in_a_task_of_starlettes,
        in_a_list_of_fastapis,
        moved_to_a_list_of_fastapis,
    ],
)
async def test_a_call_in_two_lists_is_one_task_and_runs_once(
    app: FastAPI, tasks: Afterwards, said: list[str], combine: Callable[[BackgroundTasks], Any]
) -> None:
    @app.get("/")
    async def handler(injected: BackgroundTasks) -> Response:
        injected.add_task(note, "one")
        return Response(background=combine(injected))

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: {"one", "other"} <= set(said))
    stored = await records(tasks)
    await tasks.client.close()
    assert sorted(said) == ["one", "other"]
    assert [(task.state, task.attempt) for task in stored] == [(State.SUCCEEDED, 1)] * 2


async def test_a_call_that_is_run_by_hand_twice_is_stored_once(
    app: FastAPI, tasks: Afterwards, said: list[str]
) -> None:
    @app.get("/")
    async def handler(injected: BackgroundTasks) -> None:
        injected.add_task(note, "one")
        [call] = injected.tasks
        await call()
        await call()
        assert said == []

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: said)
    assert said == ["one"]


async def test_a_call_of_one_request_in_the_response_of_others_runs_once(
    app: FastAPI, tasks: Afterwards, said: list[str]
) -> None:
    made: list[Any] = []

    @app.get("/make")
    async def make(injected: BackgroundTasks) -> None:
        injected.add_task(note, "one")
        made.extend(injected.tasks)

    @app.get("/use")
    async def use() -> Response:
        return Response(background=BackgroundTasks(made))

    async with serving(app) as http:
        for path in ("/make", "/use"):
            assert (await http.get(path)).status_code == 200
        await asyncio.gather(*(http.get("/use") for _ in range(5)))
        await http.get("/make")
        await until(lambda: len(said) == 2)
    assert [task.attempt for task in await records(tasks)] == [1, 1]
    await tasks.client.close()


async def test_a_call_taken_out_before_its_request_ended_is_stored_once_by_two_others_at_once(
    app: FastAPI, tasks: Afterwards, said: list[str]
) -> None:
    made: list[Any] = []

    @app.get("/make")
    async def make(injected: BackgroundTasks) -> None:
        for number in range(10):
            injected.add_task(note, f"call {number}")
        made.extend(injected.tasks)
        injected.tasks.clear()

    @app.get("/use")
    async def use() -> Response:
        return Response(background=BackgroundTasks(made))

    async with serving(app) as http:
        await http.get("/make")
        await asyncio.gather(*(http.get("/use") for _ in range(8)))
        await until(lambda: len(set(said)) == 10)
        await until_async(lambda: _all_succeeded(tasks))
    assert len(said) == 10
    assert [task.attempt for task in await records(tasks)] == [1] * 10
    await tasks.client.close()


async def _all_succeeded(tasks: Afterwards) -> bool:
    return all(task.state is State.SUCCEEDED for task in await records(tasks))


async def test_a_call_of_a_websocket_in_its_response_elsewhere_runs_once(
    app: FastAPI, tasks: Afterwards, said: list[str]
) -> None:
    made: list[Any] = []

    @app.websocket("/ws")
    async def conversation(socket: WebSocket, injected: BackgroundTasks) -> None:
        await socket.accept()
        injected.add_task(note, "one")
        made.extend(injected.tasks)
        await socket.close()

    @app.get("/use")
    async def use() -> Response:
        return Response(background=BackgroundTasks(made))

    from websockets.asyncio.client import connect

    async with serving(app) as http:
        async with connect(str(http.base_url).replace("http", "ws") + "/ws") as socket:
            await socket.wait_closed()
        await http.get("/use")
        await until(lambda: said)
    assert said == ["one"]
    assert [task.attempt for task in await records(tasks)] == [1]
    await tasks.client.close()


async def test_plain_tasks_of_joined_lists_run_once_as_with_fastapi(
    app: FastAPI, tasks: Afterwards, said: list[str]
) -> None:
    @app.get("/")
    async def handler(injected: BackgroundTasks) -> Response:
        injected.add_task(plain, "plain")
        return Response(background=joined(injected))

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: len(said) == 2)
    assert sorted(said) == ["other", "plain"]
