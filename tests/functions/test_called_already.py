"""``add_task(f(1))`` instead of ``add_task(f, 1)``: f ran already, and what it returned is no function."""

import asyncio
import gc
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from inspect import isawaitable
from typing import Any

import pytest
import starlette.background
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterwards import Afterwards, BackgroundTasks, chain, task
from afterwards.core.errors import AfterwardsError, NotAFunction
from afterwards.testing import assert_not_enqueued


@task
async def send(number: int) -> int:
    return number


@task
def count(number: int) -> int:
    return number


def plain(number: int) -> None: ...


async def fetch(number: int) -> None: ...


def numbers() -> Iterator[int]:
    yield 1


@pytest.fixture(autouse=True)
def no_coroutine_is_left() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()


def given_to(add: Callable[[Any], object]) -> str:
    """What is said to an endpoint that adds, and that is answered with 500."""
    said: list[str] = []
    app = FastAPI()
    Afterwards(app)

    @app.post("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(send, 1)
        try:
            added = add(tasks)
            await added if isawaitable(added) else None
        except AfterwardsError as error:
            said.append(str(error))
            raise

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/").status_code == 500
        assert_not_enqueued(send)
    return said[0]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: plain(1), "None is no function. With `add_task(f(1))` f ran already: write `add_task(f, 1)`"),
        (lambda: count(1), "a value of type int is no function. With `add_task(f(1))` f ran already"),
        (lambda: "plain", "a value of type str is no function. With `add_task(f(1))` f ran already"),
        (numbers, "a value of type generator is no function"),
        (lambda: fetch(1), "`add_task(fetch(1))` called fetch already: write `add_task(fetch, 1)`"),
        (lambda: send(1), "`add_task(send(1))` called send already: write `add_task(send, 1)`"),
        (lambda: send.call(1), "send.call(...) is for `chain`: write `add_task(send, ...)`"),
    ],
)
def test_what_is_no_function_is_refused_with_what_to_write(call: Callable[[], Any], told: str) -> None:
    assert told in given_to(lambda tasks: tasks.add_task(call()))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: send(1), "`tasks.enqueue(send(1))` called send already: write `tasks.enqueue(send, 1)`"),
        (lambda: count(1), "With `tasks.enqueue(f(1))` f ran already: write `tasks.enqueue(f, 1)`"),
        (lambda: send.call(1), "send.call(...) is for `chain`: write `tasks.enqueue(send, ...)`"),
        (lambda: plain, "a plain function would not survive: write @task above it"),
    ],
)
def test_the_same_is_said_by_tasks_enqueue(call: Callable[[], Any], told: str) -> None:
    enqueue: Any = Afterwards(FastAPI(), "memory://").enqueue
    with pytest.raises(NotAFunction) as raised:
        asyncio.run(enqueue(call(), 1))
    assert told in str(raised.value)


def test_the_same_is_said_of_starlettes_tasks_and_lists() -> None:
    func: Any = None
    assert "None is no function" in given_to(lambda tasks: BackgroundTasks([starlette.background.BackgroundTask(func)]))
    assert "None is no function" in given_to(lambda tasks: BackgroundTasks([func]))


class Greeter:
    def __call__(self, number: int) -> None: ...
    def greet(self, number: int) -> None: ...


@pytest.mark.parametrize("function", [plain, fetch, Greeter(), Greeter().greet, partial(plain, 1), print, list, len])
def test_whatever_can_be_called_is_added_as_ever(function: Any) -> None:
    tasks = BackgroundTasks()
    tasks.add_task(function)
    assert [one.func for one in tasks.tasks] == [function]


@pytest.mark.parametrize(
    ("calls", "told"),
    [
        (lambda: [send(1), fetch(2)], "`chain(send(1))` called send already: write `chain(send.call(1))`"),
        (
            lambda: [count.call(1), plain(1)],
            "None is no call. With `chain(f(1))` f ran already: write `chain(f.call(1))`",
        ),
        (
            lambda: [send],
            "chain(send): found a task function instead of a call: write `chain(send.call(...))`",
        ),
        (lambda: ["send"], "a value of type str is no call"),
    ],
)
def test_a_chain_is_made_of_calls_that_have_not_run(calls: Callable[[], list[Any]], told: str) -> None:
    assert told in given_to(lambda tasks: chain(*calls()))


def test_a_handle_is_no_call_of_a_chain() -> None:
    async def again(tasks: Any) -> None:
        stored: Any = tasks.add_task(send, 1)
        await chain(stored)

    assert (
        "found a task that is stored already. To run a call after it, write f.options(after=handle).call(x)"
        in given_to(again)
    )


@pytest.mark.parametrize(
    "enqueue", [lambda tasks, call: send.enqueue(call), lambda tasks, call: tasks.add_task(send, call)]
)
def test_a_task_functions_own_call_is_no_argument_of_it(enqueue: Callable[[Any, Any], object]) -> None:
    told = "`send.enqueue(send(1))` called send already: write `send.enqueue(1)`"
    assert told in given_to(lambda tasks: enqueue(tasks, send(1)))
