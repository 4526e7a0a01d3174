"""An awaitable that a function returns is awaited, and a generator is no success."""

import asyncio
import sqlite3
from collections import ChainMap, deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import StringIO
from itertools import count, islice, starmap
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
from fastapi import Depends, FastAPI

from afterwards import Afterwards, BackgroundTasks, FailedTask, State, task
from afterwards.core.task import FailureKind
from afterwards.execution import awaitables
from face.diary import said as the_diary
from face.serving import finished, serving, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


async def say(text: str) -> str:
    await asyncio.sleep(0)
    the_diary.append(text)
    if text == "broken":
        raise LookupError(text)
    return text


class Reply:
    """Awaitable, as what some clients' methods return."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __await__(self) -> Any:
        return say(self._text).__await__()


def a_future(text: str) -> "Future[str]":
    future: Future[str] = Future()
    the_diary.append(text)
    if text == "broken":
        future.set_exception(LookupError(text))
    else:
        future.set_result(text)
    return future


async def numbers() -> AsyncIterator[int]:
    yield 1


WAYS: dict[str, Callable[[str], Any]] = {
    "coroutine": say,
    "awaitable": Reply,
    "future": a_future,
    "nested": lambda text: _nested(text),
}


async def _nested(text: str) -> Any:
    return say(text)


@task
def return_from_a_thread(way: str, text: str) -> Any:
    return WAYS[way](text)


@task
async def return_from_the_loop(way: str, text: str) -> Any:
    return WAYS[way](text)


@task(timeout=30)
def return_with_a_timeout(way: str, text: str) -> Any:
    return WAYS[way](text)


def connection() -> Iterator[str]:
    try:
        yield "open"
    finally:
        the_diary.append("closed")


@task
def return_within_a_dependency(way: str, text: str, held: str = Depends(connection)) -> Any:
    return WAYS[way](text)


FUNCTIONS = [return_from_a_thread, return_from_the_loop, return_with_a_timeout, return_within_a_dependency]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda value: value.name)
async def test_what_a_function_returns_is_awaited(url: str, said: list[str], function: Any, way: str) -> None:
    async with working(url):
        assert await (await function.enqueue(way, "said")).result(timeout=10) == "said"
        raised = await finished(await function.enqueue(way, "broken"))
    assert said == (
        ["said", "closed", "broken", "closed"] if function is return_within_a_dependency else ["said", "broken"]
    )
    assert (raised.state, raised.failures[0].type) == (State.FAILED, "LookupError")


@task(timeout=0.05)
def return_what_never_ends() -> Any:
    return asyncio.sleep(60)


async def test_what_is_awaited_has_a_timeout_too(url: str) -> None:
    async with working(url):
        record = await finished(await return_what_never_ends.enqueue())
    assert [failure.kind for failure in record.failures] == [FailureKind.TIMED_OUT]


@task
def give_a_generator() -> Any:
    return (number for number in (1, 2))


@task
def return_an_async_generator() -> Any:
    return numbers()


@pytest.mark.parametrize("function", [give_a_generator, return_an_async_generator], ids=lambda value: value.name)
async def test_a_generator_that_nobody_iterates_is_a_failure(url: str, function: Any) -> None:
    async with working(url):
        record = await finished(await function.enqueue())
    assert (record.state, record.failures[0].type) == (State.FAILED, "TypeError")
    assert "whose body has not run" in record.failures[0].message


MANY: dict[str, Callable[[str], Any]] = {
    "list": lambda text: [text, say(text)],
    "tuple": lambda text: (say(text), text),
    "dict": lambda text: {"mail": say(text)},
    "set of objects": lambda text: {Reply(text)},
    "list of futures": lambda text: [Future()],
    "map": lambda text: map(the_diary.append, [text]),
    "starmap": lambda text: starmap(the_diary.append, [(text,)]),
    "list of lists": lambda text: [[say(text)]],
    "dict in a dict": lambda text: {"mails": {"first": Reply(text)}},
    "values of a dict": lambda text: {"mail": say(text)}.values(),
    "queue": lambda text: deque([say(text)]),
    "named tuple": lambda text: Mail(say(text)),
    "dataclass": lambda text: Letter(say(text)),
    "very many": lambda text: [(number, say(text)) for number in range(5000)],
    "very many in a dict": lambda text: {"sent": [{"to": number, "mail": say(text)} for number in range(5000)]},
    "very many that are the same": lambda text: [[]] * 5000 + [[Reply(text)]],
    "key": lambda text: {Reply(text): "mail"},
    "keys of a dict": lambda text: {Reply(text): "mail"}.keys(),
    "items of a dict": lambda text: {"mail": say(text)}.items(),
    "namespace": lambda text: SimpleNamespace(mail=say(text)),
    "chain of dicts": lambda text: ChainMap({}, {"mail": say(text)}),
    "read-only dict": lambda text: MappingProxyType({"mail": say(text)}),
    "zip": lambda text: zip(map(the_diary.append, [text]), strict=True),
    "enumerate": lambda text: enumerate(map(the_diary.append, [text])),
    "slice": lambda text: islice(map(the_diary.append, [text]), 1),
    "calls until": lambda text: iter(partial(the_diary.append, text), None),
    "iterator": lambda text: Mails(text),
    "async iterator": lambda text: AsyncMails(text),
    "list with an iterator": lambda text: [Mails(text)],
}


class Mails:
    def __init__(self, text: str) -> None:
        self._text = text

    def __iter__(self) -> "Mails":
        return self

    def __next__(self) -> None:
        the_diary.append(self._text)


class AsyncMails:
    def __init__(self, text: str) -> None:
        self._text = text

    def __aiter__(self) -> "AsyncMails":
        return self

    async def __anext__(self) -> None:
        the_diary.append(self._text)


class Mail(NamedTuple):
    sending: Any


@dataclass
class Letter:
    sending: Any


@task
def return_many(way: str) -> Any:
    return MANY[way]("said")


@pytest.mark.parametrize("way", MANY)
async def test_awaitables_in_a_container_are_a_failure(url: str, said: list[str], way: str) -> None:
    async with working(url):
        record = await finished(await return_many.enqueue(way))
    assert (record.state, said) == (State.FAILED, [])
    assert "it returned a" in record.failures[0].message


@task
def return_a_file() -> Any:
    return StringIO("a mail")


@task
def return_a_cursor() -> Any:
    with closing(sqlite3.connect(":memory:")) as connection:
        return connection.execute("CREATE TABLE mails (id)")


@task
def return_a_counter() -> Any:
    return Letter(count())


@pytest.mark.parametrize("function", [return_a_file, return_a_cursor, return_a_counter], ids=lambda one: one.name)
async def test_iterators_that_do_no_work_leave_nothing_to_do(url: str, function: Any) -> None:
    async with working(url):
        record = await finished(await function.enqueue())
    assert (record.state, record.result) == (State.SUCCEEDED, None)


@task
def return_lists(number: int, text: str, *, storable: bool) -> Any:
    return [[text] if storable else (text,) for _ in range(number)]


async def test_a_result_of_too_many_parts_to_look_at_is_a_failure(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whether its work is done, so it is no success."""
    monkeypatch.setattr(awaitables, "MOST_PARTS", 100)
    async with working(url):
        assert (await finished(await return_lists.enqueue(99, "text", storable=False))).state is State.SUCCEEDED
        record = await finished(await return_lists.enqueue(100, "text", storable=False))
    assert (record.state, record.failures[0].type) == (State.FAILED, "TypeError")
    assert "return less" in record.failures[0].message


async def test_a_result_that_is_only_too_large_leaves_nothing_to_do(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awaitables, "MOST_PARTS", 100)
    async with working(url):
        record = await finished(await return_lists.enqueue(200, "text" * 200, storable=True))
    assert (record.state, record.result) == (State.SUCCEEDED, None)


@task
async def return_futures_that_have_ended() -> Any:
    ended, _ = await asyncio.wait([asyncio.ensure_future(say("said"))])
    return list(ended)


async def test_futures_that_have_ended_leave_nothing_to_do(url: str, said: list[str]) -> None:
    async with working(url):
        record = await finished(await return_futures_that_have_ended.enqueue())
    assert (record.state, said) == (State.SUCCEEDED, ["said"])


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_plain_function_returns_is_awaited(url: str, said: list[str], way: str) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(partial(WAYS[way], "said"))
        background_tasks.add_task(the_diary.append, "next")

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: said == ["said", "next"])


async def test_a_plain_generator_is_told(url: str, caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(numbers)

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: any("whose body has not run" in record.getMessage() for record in caplog.records))


class Hostile:
    @property
    def __class__(self) -> Any:  # type: ignore[override]  # on purpose
        raise SystemExit("no class")


@task
def return_what_cannot_be_looked_into() -> Any:
    return [Hostile()]


async def test_a_result_that_cannot_be_looked_into_is_no_failure(url: str) -> None:
    async with working(url):
        assert (await finished(await return_what_cannot_be_looked_into.enqueue())).state is State.SUCCEEDED


async def test_awaitables_within_what_a_plain_function_returns_are_told(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    Afterwards(app, url)

    @app.get("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(lambda: [[say("never")]])
        background_tasks.add_task(the_diary.append, "next")

    async with serving(app) as http:
        await http.get("/")
        await until(lambda: said == ["next"])
    assert any("a list that contains a coroutine" in record.getMessage() for record in caplog.records)


def tell_by_a_coroutine(failed: FailedTask) -> Any:
    return say(f"told of {failed.name}")


@task(on_failure=tell_by_a_coroutine)
async def fail_and_have_it_told() -> None:
    raise ValueError


async def test_an_awaitable_of_who_is_told_of_a_failure_is_awaited(url: str, said: list[str]) -> None:
    async with working(url):
        await finished(await fail_and_have_it_told.enqueue())
        await until(lambda: said == ["told of fail_and_have_it_told"])
