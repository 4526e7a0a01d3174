"""A machine that is short of something for a while: what could not begin waits, and is charged nothing."""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends

from afterwards import State, task
from afterwards.core.errors import EngineUnavailable
from afterwards.engines.sqlite import SQLiteEngine
from face.diary import note
from face.diary import said as the_diary
from face.serving import finished, until, working
from isolation import functions

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

TOO_MUCH = 1 << 46
"""Bytes that no stack can have: the system refuses the thread."""


@contextmanager
def no_threads() -> Iterator[None]:
    before = threading.stack_size(TOO_MUCH)
    try:
        yield
    finally:
        threading.stack_size(before)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """What is open stays open, and nothing else can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0) - 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@task
def say_in_a_thread(text: str) -> str:
    the_diary.append(text)
    return text


def dependency() -> str:
    return "injected"


@task
async def with_a_dependency(text: str, more: Annotated[str, Depends(dependency)]) -> str:
    return text + more


def opens_something() -> Iterator[int]:
    file = os.open("/dev/null", os.O_RDONLY)
    yield file
    os.close(file)


@task
async def with_a_descriptor(file: Annotated[int, Depends(opens_something)]) -> str:
    return "opened"


def waits(caplog: pytest.LogCaptureFixture) -> Any:
    return until(lambda: "this machine is too short of something" in caplog.text)


async def test_a_def_task_waits_for_its_thread(url: str, said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    async with working(url):
        with no_threads():
            handle = await say_in_a_thread.enqueue("one")
            await waits(caplog)
            assert await (await note.enqueue("coroutines go on")).result(timeout=10) == "coroutines go on"
        record = await finished(handle)
        assert (record.state, record.attempt, record.failures) == (State.SUCCEEDED, 1, ())
        assert await (await say_in_a_thread.enqueue("next")).result(timeout=10) == "next"


async def test_a_dependency_waits_for_its_thread(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with working(url):
        with no_threads():
            handle = await with_a_dependency.enqueue("one ")  # type: ignore[call-arg]
            await waits(caplog)
        record = await finished(handle)
    assert (record.state, record.attempt, record.failures) == (State.SUCCEEDED, 1, ())


async def test_a_dependency_waits_for_a_descriptor(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with working(url):
        await (await with_a_dependency.enqueue("warm")).result(timeout=10)  # type: ignore[call-arg]
        with no_descriptors():
            handle = await with_a_descriptor.enqueue()  # type: ignore[call-arg]
            await waits(caplog)
        record = await finished(handle)
    assert (record.state, record.attempt, record.failures) == (State.SUCCEEDED, 1, ())


@pytest.mark.parametrize("short", [no_threads, no_descriptors])
async def test_a_process_that_cannot_be_started_is_started_later(
    url: str, caplog: pytest.LogCaptureFixture, short: Any
) -> None:
    async with working(url):
        with short():
            handle = await functions.add.enqueue(1, 2)
            await waits(caplog)
        record = await finished(handle)
    assert (record.state, record.attempt, record.failures) == (State.SUCCEEDED, 1, ())


async def test_an_engine_that_finds_no_thread_says_that_it_cannot_be_opened_now(tmp_path: Any) -> None:
    engine = SQLiteEngine(tmp_path / "tasks.db")
    with no_threads(), pytest.raises(EngineUnavailable, match="can't start new thread"):
        await engine.__aenter__()
    async with engine:
        assert await engine.get(["none"]) == []
