"""Reports on functions: decorated, made by other functions, or giving back what is no value."""

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, InvalidTaskFunction, task
from face.diary import said as the_diary
from face.serving import records, serving, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


def unnamed(function: Callable[..., Any]) -> Callable[..., Any]:
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


def named(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        the_diary.append("decorated")
        return function(*args, **kwargs)

    return inner


@task
@named
def first_of_two(text: str) -> str:
    the_diary.append(f"first {text}")
    return "first"


@task
@named
def second_of_two(text: str) -> str:
    the_diary.append(f"second {text}")
    return "second"


async def test_two_functions_with_the_same_decorator_are_two(url: str, said: list[str]) -> None:
    """Two tasks with the same decorator had one name, and both ran the function of the first.

    https://github.com/celery/celery/issues/2739
    """
    for function in (lambda: 1, lambda: 2):
        with pytest.raises(InvalidTaskFunction):
            task(unnamed(function))
    async with working(url):
        assert await (await first_of_two.enqueue("a")).result(timeout=10) == "first"
        assert await (await second_of_two.enqueue("b")).result(timeout=10) == "second"
    assert said == ["decorated", "first a", "decorated", "second b"]


def test_functions_made_by_a_function_are_refused_and_not_mistaken_for_each_other() -> None:
    """Of two functions with one name, made by the same factory, one ran for both, and nothing was said.

    https://github.com/celery/celery/issues/10576
    """

    def scaled(factor: int) -> Any:
        @task
        def scale(number: int) -> int:
            return number * factor

        return scale

    for factor in (2, 3):
        with pytest.raises(InvalidTaskFunction, match="factor"):
            scaled(factor)


async def work(text: str) -> str:
    the_diary.append(text)
    return text


class Client:
    def send(self, text: str) -> Coroutine[Any, Any, str]:
        return work(text)

    async def __call__(self, text: str) -> str:
        return await work(text)


@task
def call_through(text: str) -> Coroutine[Any, Any, str]:
    return work(text)


PLAIN: dict[str, Callable[[str], Any]] = {
    "coroutine function": work,
    "partial": functools.partial(work),
    "decorated": unnamed(work),
    "lambda": lambda text: work(text),
    "method": Client().send,
    "callable": Client(),
}


@pytest.mark.parametrize("function", PLAIN.values(), ids=PLAIN)
async def test_a_coroutine_that_a_plain_function_gives_back_is_awaited(
    url: str, said: list[str], function: Callable[[str], Any]
) -> None:
    """Coroutine functions were wrapped, so nobody awaited what they gave back, and the tasks never ran.

    https://github.com/Harshil-Jani/fastapi-bgtasks-dashboard/issues/4
    """
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(function, "awaited")

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: said == ["awaited"])


async def test_a_coroutine_that_a_task_gives_back_is_awaited_before_it_has_succeeded(url: str, said: list[str]) -> None:
    """The same of a stored task, which would be recorded as succeeded.

    https://github.com/Harshil-Jani/fastapi-bgtasks-dashboard/issues/4
    """
    async with working(url):
        assert await (await call_through.enqueue("awaited")).result(timeout=10) == "awaited"
    assert said == ["awaited"]


def generate(text: str) -> Iterator[str]:
    the_diary.append(text)
    yield text


async def generate_on_the_loop(text: str) -> AsyncIterator[str]:
    the_diary.append(text)
    yield text


@pytest.mark.parametrize("function", [generate, generate_on_the_loop])
async def test_a_generator_is_not_taken_for_work_done(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture, function: Callable[[str], Any]
) -> None:
    """A handler used yield to do something after the response; it made a generator, and nothing of it ran.

    https://github.com/fastapi/fastapi/issues/1264
    """
    with pytest.raises(InvalidTaskFunction, match="generator"):
        task(function)
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(function, "never")

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: said or "generat" in caplog.text)


class Sender:
    def send(self, text: str) -> None:
        the_diary.append(text)


async def test_a_bound_method_is_run_as_a_plain_function_and_refused_as_a_stored_one(url: str, said: list[str]) -> None:
    """Bound methods could not be enqueued, which an error of pickle's told.

    https://github.com/rq/rq/issues/281
    """
    with pytest.raises(InvalidTaskFunction, match="method"):
        task(Sender().send)
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(Sender().send, "sent")

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: said == ["sent"])
        assert await records(tasks) == []
