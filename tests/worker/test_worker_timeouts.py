"""How long an attempt may take, and how it is stopped."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends

from afterwards import Afterwards, Retry, State, TaskHandle, task
from afterwards.client.client import current
from afterwards.core.task import FailureKind
from face.diary import note, take, take_in_thread
from face.diary import said as the_diary
from face.serving import finished, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task(timeout=0.05, retries=Retry(1, wait=0))
async def hang() -> None:
    the_diary.append("began")
    try:
        await asyncio.sleep(60)
    finally:
        the_diary.append("cleaned up")


@task(timeout=0.05)
def hang_in_thread() -> str:
    the_diary.append("began")
    time.sleep(0.3)
    the_diary.append("ended")
    return "too late"


@task(timeout=0.05)
def hang_in_thread_and_raise() -> None:
    time.sleep(0.1)
    raise LookupError("the reason")


async def never_there() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        the_diary.append("cleaned up")


async def never_closed() -> AsyncIterator[None]:
    yield
    await never_there()


@task(timeout=0.05)
def depend_on_what_is_never_there(never: Annotated[None, Depends(never_there)]) -> None:
    the_diary.append("began")


@task(timeout=0.05)
def depend_on_what_is_never_closed(never: Annotated[None, Depends(never_closed)]) -> None: ...


async def there_at_once() -> AsyncIterator[None]:
    try:
        yield
    finally:
        the_diary.append("closed")


@task(timeout=0.05)
def hang_in_thread_with_a_dependency(there: Annotated[None, Depends(there_at_once)]) -> None:
    time.sleep(0.3)
    the_diary.append("ended")


@task(timeout=1)
def wait_for_a_thread(there: Annotated[None, Depends(there_at_once)]) -> Any:
    return there_soon()


async def there_soon() -> str:
    await asyncio.sleep(0.01)
    return "in time"


@task(timeout=60)
async def raise_timeout_error() -> None:
    raise TimeoutError("of a socket")


@task
async def refuse_to_stop() -> str:
    the_diary.append("began")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "finished all the same"
    return "never"


@task
async def clean_up_badly() -> None:
    the_diary.append("began")
    try:
        await asyncio.sleep(60)
    finally:
        raise OSError("while it was stopped")


@task(retries=Retry(3, wait=0))
def fail_after_a_while() -> None:
    the_diary.append("began")
    time.sleep(0.2)
    raise OSError


async def test_a_coroutine_is_stopped_in_time_and_may_clean_up(url: str, said: list[str]) -> None:
    async with working(url):
        record = await finished(await hang.enqueue())
    assert said == ["began", "cleaned up"] * 2
    assert [failure.kind for failure in record.failures] == [FailureKind.TIMED_OUT] * 2
    assert "timeout of 0.05 s" in record.failures[0].message
    assert "asyncio.sleep(60)" in record.failures[0].traceback


async def test_a_thread_keeps_its_slot_until_it_ends_and_has_timed_out_then(url: str, said: list[str]) -> None:
    async with working(url, concurrency=1):
        handle = await hang_in_thread.enqueue()
        await until(lambda: said == ["began"])
        await note.enqueue("next")
        record = await finished(handle)
        await until(lambda: said == ["began", "ended", "next"])
    assert (record.state, record.result) == (State.FAILED, None)
    assert [failure.kind for failure in record.failures] == [FailureKind.TIMED_OUT]


async def test_a_thread_that_raises_too_late_has_timed_out_and_its_error_is_kept(url: str) -> None:
    async with working(url):
        [failure] = (await finished(await hang_in_thread_and_raise.enqueue())).failures
    assert failure.kind is FailureKind.TIMED_OUT
    assert "LookupError: the reason" in failure.traceback


@pytest.mark.parametrize(
    "function",
    [depend_on_what_is_never_there, depend_on_what_is_never_closed],
    ids=lambda function: function.name,
)
async def test_the_timeout_of_a_def_function_covers_its_dependencies(url: str, said: list[str], function: Any) -> None:
    async with working(url):
        [failure] = (await finished(await function.enqueue())).failures
    assert (failure.kind, said) == (FailureKind.TIMED_OUT, ["cleaned up"])
    assert "timeout of 0.05 s" in failure.message


async def test_a_dependency_is_not_closed_while_a_thread_still_uses_it(url: str, said: list[str]) -> None:
    async with working(url):
        [failure] = (await finished(await hang_in_thread_with_a_dependency.enqueue())).failures
    assert (failure.kind, said) == (FailureKind.TIMED_OUT, ["ended", "closed"])


async def test_the_time_of_a_def_function_stands_still_while_it_waits_for_a_thread(url: str, said: list[str]) -> None:
    async with working(url, concurrency=2, threads=1):
        before = await take_in_thread.enqueue(2, "before")
        await until(lambda: said == ["before began"])
        assert await (await wait_for_a_thread.enqueue()).result(timeout=10) == "in time"
        assert (await finished(before)).state is State.SUCCEEDED
    assert said == ["before began", "before ended", "closed"]


async def test_a_timeout_error_of_the_functions_own_is_no_timeout(url: str) -> None:
    async with working(url):
        [failure] = (await finished(await raise_timeout_error.enqueue())).failures
    assert (failure.kind, failure.message) == (FailureKind.RAISED, "of a socket")


async def test_a_cancelled_coroutine_stops(url: str, said: list[str]) -> None:
    async with working(url):
        handle = await take.enqueue(60, "long")
        await until(lambda: said)
        await handle.cancel("enough")
        record = await finished(handle)
    assert (record.state, record.reason, record.failures) == (State.CANCELLED, "enough", ())


async def test_a_cancelled_thread_goes_on_and_its_success_stands(url: str, said: list[str]) -> None:
    async with working(url):
        handle = await take_in_thread.enqueue(0.2, "long")
        await until(lambda: said)
        await handle.cancel("enough")
        record = await finished(handle)
    assert said == ["long began", "long ended"]
    assert record.state is State.SUCCEEDED


async def test_a_cancel_beats_the_retry_that_it_crosses(url: str, said: list[str]) -> None:
    async with working(url):
        handle = await fail_after_a_while.enqueue()
        await until(lambda: said)
        await handle.cancel("enough")
        record = await finished(handle)
    assert (record.state, record.reason, record.attempt) == (State.CANCELLED, "enough", 1)


async def test_a_coroutine_that_finishes_instead_of_stopping_has_succeeded(url: str, said: list[str]) -> None:
    async with working(url):
        handle = await refuse_to_stop.enqueue()
        await until(lambda: said)
        await handle.cancel()
        assert await handle.result(timeout=10) == "finished all the same"


async def test_a_coroutine_that_raises_while_it_is_stopped_is_cancelled(url: str, said: list[str]) -> None:
    async with working(url):
        handle = await clean_up_badly.enqueue()
        await until(lambda: said)
        await handle.cancel("enough")
        record = await finished(handle)
    assert (record.state, record.reason) == (State.CANCELLED, "enough")


async def test_a_cancel_from_elsewhere_arrives_with_the_heartbeat(url: str, said: list[str]) -> None:
    async with working(url, worker=False) as elsewhere, working(url, lease=0.3) as here:
        handle = await enqueued_by(here)
        await until(lambda: said)
        await (await elsewhere.get(handle.id)).cancel("from elsewhere")
        record = await finished(handle)
    assert (record.state, record.reason) == (State.CANCELLED, "from elsewhere")


async def enqueued_by(tasks: Afterwards) -> TaskHandle[str]:
    before = current.set(tasks.client)
    try:
        return await take.enqueue(60, "long")
    finally:
        current.reset(before)
