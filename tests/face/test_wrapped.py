"""Decorators above ``@task``: their call would not be stored, which is said at once."""

import asyncio
import functools
import itertools
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from types import MethodType
from typing import Any
from unittest.mock import create_autospec

import anyio.to_thread
import fastapi
import pytest
import wrapt  # type: ignore[import-untyped, unused-ignore]
from asgiref.sync import async_to_sync, sync_to_async
from fastapi import FastAPI
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from afterwards import Afterwards, BackgroundTasks, InvalidOption, chain, task
from afterwards.core.errors import NativeBackgroundTasks, NotAFunction, WrappedTaskFunction
from face.diary import note, note_in_thread
from face.diary import said as the_diary
from face.serving import serving, until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        the_diary.append("logged")
        return await function(*args, **kwargs)

    return wrapper


class Counted:
    """A decorator that is a class."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class Sender:
    send = logged(note)


class Boundless:
    """Has every attribute, and is its own wrapper."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, text: str) -> None:
        the_diary.append(text)


class Hostile(Boundless):
    def __getattr__(self, name: str) -> Any:
        if name == "__wrapped__":
            raise ValueError(name)
        raise AttributeError(name)


@wrapt.decorator  # type: ignore[untyped-decorator, unused-ignore]
def proxied(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs)


WRAPPED = {
    "functools.wraps": logged(note),
    "two layers": logged(logged(note)),
    "a class": Counted(note),
    "a class around a wrapper": Counted(logged(note)),
    "a bound method": Sender().send,
    "a partial of a wrapper": partial(logged(note), "text"),
    "a wrapper of a partial": logged(partial(note)),
    "lru_cache": functools.lru_cache(note_in_thread),
    "wrapt": proxied(note),
    "sync_to_async": sync_to_async(note_in_thread),
    "async_to_sync": async_to_sync(note),
    "enqueue": note.enqueue,
    "enqueue_sync": note.enqueue_sync,
    "a partial of enqueue": partial(note.enqueue, "text"),
    "a wrapper of enqueue": logged(note.enqueue),
    "bound to an object": MethodType(note, "text"),
}


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    Afterwards(app, url)
    return app


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
async def test_a_wrapped_task_function_is_refused_when_it_is_added(
    app: FastAPI, said: list[str], wrapped: Callable[..., Any]
) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> str:
        with pytest.raises(WrappedTaskFunction, match=r"@task above|background_tasks\.add_task") as raised:
            tasks.add_task(wrapped, "text")
        with pytest.raises(WrappedTaskFunction):
            BackgroundTasks([BackgroundTask(wrapped, "text")])
        return raised.value.task

    async with serving(app) as http:
        assert (await http.get("/")).json() in ("note", "note_in_thread")
    assert said == []


@pytest.mark.parametrize(
    ("added", "instead"),
    [
        (lambda tasks: chain, "await chain("),
        (lambda tasks: tasks.enqueue, "add_task(f, "),
        (lambda tasks: partial(tasks.enqueue, note), "add_task(f, "),
        (lambda tasks: tasks.enqueue_many, "await tasks.enqueue_many("),
        (lambda tasks: tasks.enqueue_many_sync, "tasks.enqueue_many_sync("),
        (lambda tasks: logged(tasks.enqueue), "add_task(f, "),
    ],
    ids=["chain", "enqueue", "a partial", "enqueue_many", "enqueue_many_sync", "a wrapper"],
)
async def test_functions_that_store_tasks_are_refused_with_what_to_write_instead(
    url: str, added: Callable[[Afterwards], Callable[..., Any]], instead: str
) -> None:
    app = FastAPI()
    function = added(Afterwards(app, url))

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> str:
        with pytest.raises(NotAFunction) as raised:
            tasks.add_task(function, note.call("text"))
        return str(raised.value)

    async with serving(app) as http:
        assert instead in (await http.get("/")).json()


async def test_one_put_into_the_list_by_hand_is_refused_before_the_response(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.tasks.append(BackgroundTask(logged(note), "text"))

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 500
    assert said == []


@pytest.mark.parametrize(
    "add",
    [
        lambda tasks: tasks.add_task(partial(note, "text")),
        lambda tasks: tasks.add_task(note.__call__, "text"),
        lambda tasks: tasks.add_task(partial(note.__call__, text="text")),
        lambda tasks: tasks.add_task(BackgroundTask(partial(note, "text"))),
        lambda tasks: tasks.tasks.append(BackgroundTask(partial(note), "text")),
        lambda tasks: tasks.tasks.append(BackgroundTask(note.__call__, text="text")),
    ],
)
async def test_what_adds_nothing_to_the_call_is_stored(
    app: FastAPI, said: list[str], add: Callable[[Any], Any]
) -> None:
    stored: list[Any] = []

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        add(tasks)
        await tasks.flush()
        stored.append(await tasks.tasks[0].handle.status())  # type: ignore[attr-defined]

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: said)
    assert said == ["text"]
    assert stored[0].name == "note"


@task(name="with_task_on_top")
@logged
async def with_task_on_top(text: str) -> None:
    the_diary.append(text)


async def test_with_task_on_top_the_decorator_is_part_of_the_task(app: FastAPI, said: list[str]) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        assert tasks.add_task(with_task_on_top, "text") is not None

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: "text" in said)
    assert said == ["logged", "text"]


@pytest.mark.parametrize(
    "function", [Boundless(), Hostile(), create_autospec(note)], ids=["boundless", "hostile", "mock"]
)
async def test_objects_that_wrap_nothing_stay_plain(app: FastAPI, said: list[str], function: Any) -> None:
    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        assert tasks.add_task(function, "text") is None

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200


class Silent:
    """A decorator that says nothing of what it is around."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._inner = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner(*args, **kwargs)


def silent(function: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


_numbers = itertools.count()

UNNAMED: dict[str, Callable[..., Callable[..., Any]]] = {
    "a class": Silent,
    "its method": lambda function: Silent(function).__call__,
    "a function": silent,
    "a partial": lambda function: partial(silent(function)),
    "a lambda": lambda function: lambda text: function(text),
}


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("wrap", UNNAMED.values(), ids=UNNAMED)
async def test_a_wrapper_that_does_not_say_what_it_wraps_is_told_when_it_runs(
    app: FastAPI, said: list[str], caplog: pytest.LogCaptureFixture, wrap: Any, threaded: bool
) -> None:
    name = f"wrapped-{next(_numbers)}"  # of its own, for it is told once of each

    @task(name=name)
    def in_thread(text: str) -> None:
        the_diary.append(text)

    @task(name=f"{name}-async")
    async def on_the_loop(text: str) -> None:
        the_diary.append(text)

    function: Any = in_thread if threaded and wrap is not silent else on_the_loop

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(wrap(function), "text")

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: said == ["text"])
    assert f"task function {function.name!r} was called by" in caplog.text


def with_a_default(function: Any) -> Callable[[str], Any]:
    def calls(text: str, function: Any = function) -> Any:
        return function(text)

    return calls


def given(first: Any, *given: Any) -> Callable[[Any], tuple[Any, ...]]:
    return lambda function: (first, *given, function)


RUNNERS: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "starlette": given(run_in_threadpool),
    "asyncio": given(asyncio.to_thread),
    "anyio": given(anyio.to_thread.run_sync),
    "a context": given(copy_context().run),
    "an executor": lambda function: (asyncio.get_running_loop().run_in_executor, None, function),
    "a default": lambda function: (with_a_default(function),),
    "a partial": lambda function: (partial(run_in_threadpool, function),),
}


@pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS)
async def test_a_function_that_calls_a_given_task_function_is_told_when_it_runs(
    app: FastAPI, said: list[str], caplog: pytest.LogCaptureFixture, runner: Callable[[Any], tuple[Any, ...]]
) -> None:
    @task(name=f"given-{next(_numbers)}")
    def function(text: str) -> None:
        the_diary.append(text)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(*runner(function), "text")

    async with serving(app) as http:
        assert (await http.get("/")).status_code == 200
        await until(lambda: said == ["text"])
    assert f"task function {function.name!r} was called by" in caplog.text


async def test_a_function_that_calls_task_functions_as_it_likes_is_no_wrapper(
    app: FastAPI, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def local(text: str) -> None:
        note_in_thread(f"{text} and more")
        said.append(text)

    @app.get("/")
    async def handler(tasks: BackgroundTasks) -> None:
        tasks.add_task(local, "local")
        tasks.add_task(with_a_name, "named")

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: len(said) == 3)
    assert "was called by" not in caplog.text


def with_a_name(text: str) -> None:
    note_in_thread(text)


async def test_on_failure_is_refused_too() -> None:
    with pytest.raises(WrappedTaskFunction, match="note"):
        task(on_failure=logged(note))
    with pytest.raises(InvalidOption):
        task(on_failure="note")  # type: ignore[call-overload]


@task
async def natively_wrapped(text: str) -> None:
    the_diary.append(text)


@task
def natively_wrapped_in_thread(text: str) -> None:
    the_diary.append(text)


@pytest.mark.parametrize(
    "function",
    [
        logged(natively_wrapped),
        logged(logged(natively_wrapped)),
        functools.wraps(natively_wrapped_in_thread)(lambda text: natively_wrapped_in_thread(text)),
    ],
    ids=["wraps", "two layers", "in a thread"],
)
async def test_in_fastapis_own_background_tasks_it_is_recognised(
    url: str, said: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, function: Any
) -> None:
    monkeypatch.setenv("FASTAPI_ENV", "development")
    app = FastAPI()

    @app.get("/")
    async def handler(tasks: fastapi.BackgroundTasks) -> None:
        tasks.add_task(function, "text")

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: [r for r in caplog.records if r.exc_info and r.exc_info[0] is NativeBackgroundTasks])
    assert "text" not in said
