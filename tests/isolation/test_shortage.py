"""A machine that is short of something for a while: what could not begin waits, and is charged nothing."""

import gc
import os
import resource
import threading
import tracemalloc  # noqa: F401  # else pytest imports it where it finds no descriptor for that
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends

from afterwards import State, TaskHandle, TaskRecord, task
from afterwards.core.errors import EngineUnavailable
from afterwards.core.shortage import NO_THREAD
from afterwards.core.task import FailureKind, Lease
from afterwards.engine import Held
from afterwards.engines.memory import MemoryEngine
from afterwards.engines.postgres import PostgresEngine
from afterwards.engines.postgres.io.errors import translated_at_connecting
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.execution import attempt
from afterwards.execution.health import Health
from afterwards.worker.heartbeat import HeartbeatThread
from face.diary import note
from face.diary import said as the_diary
from face.serving import finished, until, until_async, working
from isolation import functions, killed_at_import

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
    return until(lambda: "this machine lacks a resource" in caplog.text)


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


async def test_a_process_that_is_killed_at_its_import_charges_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function never ran, so it is no crash: ``rerun_after_crash=False`` would end the task."""
    (tmp_path / "kills").write_text("2")
    monkeypatch.setenv(killed_at_import.KILLS, str(tmp_path / "kills"))
    async with working(url):
        record = await finished(await killed_at_import.survive.enqueue())
    assert (record.state, record.attempt, record.failures) == (State.SUCCEEDED, 1, ())
    assert (tmp_path / "kills").read_text() == "0"


async def test_a_task_whose_processes_are_all_killed_is_given_back_and_that_is_told(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kills").write_text("1000")
    monkeypatch.setenv(killed_at_import.KILLS, str(tmp_path / "kills"))
    monkeypatch.setattr(attempt, "LONGEST_PAUSE", 0.0)
    async with working(url):
        handle = await killed_at_import.survive.enqueue()
        await waits(caplog)
        record = await until_async(lambda: _given_back(handle))
    assert (record.state, record.failures[0].kind) == (State.SCHEDULED, FailureKind.RELEASED)
    assert "its process was killed by SIGKILL" in caplog.text
    assert "it could not start: its process was killed by SIGKILL" in record.failures[0].message


async def _given_back(handle: TaskHandle[Any]) -> TaskRecord | None:
    record = await handle.status()
    return record if record.failures else None


@pytest.mark.parametrize("kind", ["file", pytest.param("server", marks=pytest.mark.xdist_group("postgres"))])
async def test_an_engine_that_finds_no_thread_says_that_it_cannot_be_opened_now(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    engine: SQLiteEngine | PostgresEngine
    if kind == "file":
        engine = SQLiteEngine(tmp_path / "tasks.db")
    else:
        engine = PostgresEngine(request.getfixturevalue("postgres_url"))
    with no_threads(), pytest.raises(EngineUnavailable, match="cannot be opened: can't start new thread"):
        await engine.__aenter__()
    async with engine:
        assert await engine.get(["none"]) == []


def test_a_server_whose_name_no_thread_can_look_up_is_away() -> None:
    error = translated_at_connecting(RuntimeError(NO_THREAD), "postgresql://shop")
    assert isinstance(error, EngineUnavailable)
    assert str(error) == "postgresql://shop: can't start new thread"


class NoWorker:
    """A worker that holds nothing."""

    def to_renew(self) -> Sequence[Lease]:
        return ()

    def renewed(self, asked: Sequence[Lease], held: Sequence[Held]) -> None: ...


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # asyncio's, of a loop half made
@pytest.mark.parametrize("short", [no_threads, no_descriptors])
async def test_a_heartbeat_that_cannot_begin_says_so_to_its_worker(short: Any) -> None:
    """In its own thread it would end unheard, and every lease with it."""
    heartbeat = HeartbeatThread(MemoryEngine(), timedelta(seconds=30), NoWorker(), Health())
    with short(), pytest.raises((OSError, RuntimeError)):
        await heartbeat.start(NoWorker())
    gc.collect()  # the loop half made, in this test
