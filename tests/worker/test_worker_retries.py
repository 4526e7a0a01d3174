"""What becomes of a task whose function raises."""

from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends

from afterwards import Cancel, Retry, RetryAfter, Snooze, State, TaskHandle, task
from afterwards.core.task import FailureKind
from face.diary import note
from face.diary import said as the_diary
from face.serving import as_stored, finished, until, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task(retries=Retry(3, wait=0))
async def fail_twice(text: str) -> str:
    the_diary.append(text)
    if len(the_diary) < 3:
        raise OSError(f"failure {len(the_diary)}")
    return text


@task(retries=Retry(2, wait=0))
def fail_always_in_thread(text: str) -> None:
    the_diary.append(text)
    raise OSError(text)


@task(retries=Retry(5, wait=0, on=OSError, never=(PermissionError,)))
async def fail_with(name: str) -> None:
    the_diary.append(name)
    raise {"OSError": OSError, "PermissionError": PermissionError, "ValueError": ValueError}[name](name)


def take_from_nothing() -> None:
    the_diary.append("taken")
    next(iter(()))


ON_STOP_ITERATION = Retry(2, wait=0, on=StopIteration)


@task(retries=ON_STOP_ITERATION)
def stop_iterating() -> None:
    take_from_nothing()


@task(retries=ON_STOP_ITERATION)
async def depend_on_nothing(taken: Annotated[None, Depends(take_from_nothing)]) -> None: ...


@task(retries=1)
async def ask_for_another_time(seconds: float) -> None:
    the_diary.append("asked")
    raise RetryAfter(seconds, "busy")


@task
async def snooze_twice() -> str:
    the_diary.append("snoozed")
    if len(the_diary) < 3:
        raise Snooze(0.01)
    return "awake"


@task(retries=3)
async def stop_here() -> None:
    raise Cancel("not needed any more")


@task(retries=Retry(1, wait=60, jitter=False))
async def wait_a_minute() -> None:
    raise OSError


@task(retries=Retry(1, wait=0))
async def exit_group() -> None:
    raise ExceptionGroup("both", [OSError("one"), ValueError("two")])


async def test_it_runs_again_until_it_succeeds(url: str, said: list[str]) -> None:
    async with working(url):
        handle = await fail_twice.enqueue("again")
        assert await handle.result(timeout=10) == "again"
        record = await as_stored(handle)
    assert said == ["again"] * 3
    assert (record.attempt, record.failed) == (3, 2)
    assert [(f.attempt, f.kind, f.type, f.message) for f in record.failures] == [
        (1, FailureKind.RAISED, "OSError", "failure 1"),
        (2, FailureKind.RAISED, "OSError", "failure 2"),
    ]
    assert all("in fail_twice" in failure.traceback for failure in record.failures)


async def test_it_fails_for_good_when_the_retries_are_used_up(url: str, said: list[str]) -> None:
    async with working(url):
        record = await finished(await fail_always_in_thread.enqueue("again"))
    assert record.state is State.FAILED
    assert said == ["again"] * 3
    assert len(record.failures) == 3


@pytest.mark.parametrize(("name", "times"), [("OSError", 6), ("PermissionError", 1), ("ValueError", 1)])
async def test_only_the_exceptions_that_were_named_are_retried(
    url: str, said: list[str], name: str, times: int
) -> None:
    async with working(url):
        assert (await finished(await fail_with.enqueue(name))).state is State.FAILED
    assert len(said) == times


@pytest.mark.parametrize("function", [stop_iterating, depend_on_nothing])
async def test_a_thread_that_raises_stop_iteration_fails_with_it(url: str, said: list[str], function: Any) -> None:
    """No coroutine can raise it: Python makes a RuntimeError of it there."""
    async with working(url):
        failures = (await finished(await function.enqueue())).failures
    assert said == ["taken"] * 3
    assert [(failure.kind, failure.type) for failure in failures] == [(FailureKind.RAISED, "StopIteration")] * 3
    assert "RuntimeError" not in failures[0].traceback
    assert "in take_from_nothing" in failures[0].traceback


async def test_a_function_may_say_when_to_try_again(url: str, said: list[str]) -> None:
    async with working(url):
        handle = await ask_for_another_time.enqueue(3600)
        record = await until_async(lambda: scheduled(handle))
        assert (await as_stored(handle)).failed == 1
    assert timedelta(minutes=59) < record.run_at - record.started_at < timedelta(minutes=61)
    assert record.failures[0].message == "busy"
    assert record.retrying


async def test_asking_for_another_time_counts_as_a_failure(url: str, said: list[str]) -> None:
    async with working(url):
        record = await finished(await ask_for_another_time.enqueue(0))
    assert record.state is State.FAILED
    assert said == ["asked", "asked"]


async def test_a_snooze_is_no_failure(url: str, said: list[str]) -> None:
    async with working(url):
        handle = await snooze_twice.enqueue()
        assert await handle.result(timeout=10) == "awake"
        record = await as_stored(handle)
    assert (record.attempt, record.failed, record.failures) == (3, 0, ())


async def test_a_function_may_cancel_its_task(url: str) -> None:
    async with working(url):
        record = await finished(await stop_here.enqueue())
    assert (record.state, record.reason, record.attempt) == (State.CANCELLED, "not needed any more", 1)


async def test_a_retry_waits(url: str) -> None:
    async with working(url):
        handle = await wait_a_minute.enqueue()
        record = await until_async(lambda: scheduled(handle))
    assert timedelta(seconds=59) < record.run_at - record.started_at < timedelta(seconds=65)


async def test_a_group_of_exceptions_is_a_failure_like_any_other(url: str) -> None:
    async with working(url):
        record = await finished(await exit_group.enqueue())
    assert record.failures[0].type == "ExceptionGroup"
    assert "ValueError: two" in record.failures[0].traceback


async def test_a_delay_is_waited_for(url: str, said: list[str]) -> None:
    async with working(url):
        handle = await note.options(delay=0.2).enqueue("later")
        await (await note.enqueue("now")).result(timeout=10)
        await until(lambda: len(said) == 2)
        record = await finished(handle)
    assert record.started_at - record.created_at >= timedelta(seconds=0.2)


async def test_higher_priorities_run_first(url: str, said: list[str]) -> None:
    async with working(url, worker=False):
        for priority in (0, -5, 5, 100):
            await note.options(priority=priority).enqueue(str(priority))
    async with working(url, concurrency=1):
        await until(lambda: said == ["100", "5", "0", "-5"])


async def test_a_worker_takes_from_its_queues_only(url: str, said: list[str]) -> None:
    async with working(url, queues=["mail"]):
        other = await note.enqueue("default")
        await note.options(queue="mail").enqueue("mail")
        await until(lambda: said)
        assert (await other.status()).state is State.QUEUED
    async with working(url):
        await until(lambda: said == ["mail", "default"])


async def scheduled(handle: TaskHandle[Any]) -> Any:
    record = await handle.status()
    return record if record.state is State.SCHEDULED else None
