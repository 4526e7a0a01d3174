"""``ctx: TaskContext``, and ``progress``."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends

from afterwards import Progress, Retry, State, TaskContext, TaskFailed, progress, task
from face.serving import an_engine, finished, records, until, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

seen: list[Any] = []
gate = threading.Event()


@pytest.fixture(autouse=True)
def afresh() -> None:
    seen.clear()
    gate.clear()


def who(ctx: TaskContext) -> str:
    return f"{ctx.name} {ctx.attempt}"


@task(retries=Retry(1, wait=0), timeout=60)
async def look(
    number: int, ctx: TaskContext, asked: Annotated[str, Depends(who)] = "", again: TaskContext = Depends()
) -> int:
    seen.append((ctx, asked, ctx is again))
    if ctx.attempt == 1:
        raise ValueError
    return number


@task
def wait_until_cancelled(ctx: TaskContext) -> None:
    gate.set()
    try:
        while True:
            ctx.check_cancelled()
            threading.Event().wait(0.005)
    finally:
        seen.append("the thread has ended")


@task
async def import_rows(count: int) -> None:
    async for _ in progress(range(count), desc="import", unit="row"):
        await asyncio.sleep(0)


@task
async def count_slowly(total: int) -> None:
    with progress(total=total, desc="count") as bar:
        for number in range(total):
            bar.update(1)
            bar.set_postfix(last=number)
            if number == 2:
                await until(gate.is_set)


@task
def count_in_thread(total: int) -> int:
    done = 0
    for number in progress(range(total)):
        if number == 5:
            gate.wait(10)
        done += 1
    return done


@task(retries=Retry(1, wait=0))
async def fails_half_way(ctx: TaskContext) -> None:
    with progress(total=10) as bar:
        bar.update(5 if ctx.attempt == 1 else 10)
        if ctx.attempt == 1:
            raise ValueError


@task
async def nested() -> None:
    with progress(total=2, desc="outer") as outer:
        for _ in range(2):
            for _ in progress(range(5), desc="inner"):
                pass
            outer.update()


async def pieces() -> AsyncIterator[int]:
    for number in range(3):
        yield number


@task
async def from_a_stream() -> list[int]:
    return [number async for number in progress(pieces(), total=3)]


async def test_a_function_and_its_dependencies_are_told_about_the_attempt(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        handle = await look.enqueue(7)
        assert await handle.result(timeout=10) == 7
        record = await handle.status()
    (first, asked, same), (second, asked_again, _) = seen
    assert (first.id, first.name, first.attempt, second.attempt) == (handle.id, "look", 1, 2)
    assert (asked, asked_again, same) == ("look 1", "look 2", True)
    assert first.enqueued_at == record.created_at
    assert second.deadline == record.started_at + timedelta(seconds=60)


async def test_a_direct_call_is_given_it_like_any_argument() -> None:
    with pytest.raises(AttributeError):
        await look(7, None)


async def test_without_a_timeout_there_is_no_deadline(tmp_path: Path) -> None:
    @task
    async def deadline_of(ctx: TaskContext) -> bool:
        return ctx.deadline is None

    async with working(an_engine(tmp_path)):
        assert await (await deadline_of.enqueue()).result(timeout=10) is True


async def test_a_thread_ends_itself_when_its_task_is_cancelled(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        handle = await wait_until_cancelled.enqueue()
        await until(gate.is_set)
        await handle.cancel("not needed")
        record = await finished(handle)
    assert (record.state, record.reason) == (State.CANCELLED, "not needed")


async def test_a_thread_ends_itself_when_its_worker_ends(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path), grace=0):
        handle = await wait_until_cancelled.enqueue()
        await until(gate.is_set)
    await until(lambda: seen == ["the thread has ended"])
    async with working(an_engine(tmp_path), worker=False) as tasks:

        async def given_back() -> bool:
            return [one.state for one in await records(tasks)] == [State.QUEUED]

        await until_async(given_back)  # the thread may have ended after its worker
        [record] = await records(tasks)
    assert (record.id, record.failures[0].kind) == (handle.id, "released")


async def test_progress_ends_with_all_of_it(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        record = await finished(await import_rows.enqueue(1000))
    assert record.progress == Progress(done=1000, total=1000, description="import", unit="row")
    assert record.progress.fraction == 1


async def test_it_is_seen_while_the_task_runs_also_by_another_process_s_client(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(working(an_engine(tmp_path)))
        handle = await count_slowly.enqueue(10)

        async def seen_so_far() -> bool:
            found = (await handle.status()).progress
            return found == Progress(done=3, total=10, description="count", note="last=2")

        await until_async(seen_so_far)
        assert (await handle.status()).state is State.RUNNING
        gate.set()
        assert (await finished(handle)).progress == Progress(done=10, total=10, description="count", note="last=9")


async def test_threads_report_it_too(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        handle = await count_in_thread.enqueue(10)

        async def half() -> bool:
            found = (await handle.status()).progress
            return found == Progress(done=5, total=10)

        await until_async(half)
        gate.set()
        assert await handle.result(timeout=10) == 10


async def test_a_retry_begins_without_it_and_a_failure_keeps_it(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        record = await finished(await fails_half_way.enqueue())
    assert (record.attempt, record.progress) == (2, Progress(done=10, total=10))


async def test_a_number_of_another_kind_is_shown_and_what_is_none_raises_in_the_function(tmp_path: Path) -> None:
    @task
    async def with_decimals() -> None:
        with progress(total=Decimal(3), desc=Path("rows")) as bar:
            bar.update(Decimal("1.5"))

    @task
    async def with_words() -> None:
        with progress(total=3) as bar:
            bar.update("one")

    async with working(an_engine(tmp_path), lease=1):
        shown, raised = await finished(await with_decimals.enqueue()), await finished(await with_words.enqueue())
    assert shown.progress == Progress(done=1.5, total=3.0, description="rows")
    assert (raised.state, raised.failures[0].type) == (State.FAILED, "ValueError")


async def test_of_several_the_outermost_is_shown(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        record = await finished(await nested.enqueue())
    assert record.progress == Progress(done=2, total=2, description="outer")


async def test_a_stream_can_be_followed(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        handle = await from_a_stream.enqueue()
        assert await handle.result(timeout=10) == [0, 1, 2]
        assert (await handle.status()).progress == Progress(done=3, total=3)


async def test_outside_a_task_it_goes_through_and_shows_nothing() -> None:
    assert list(progress([1, 2])) == [1, 2]
    assert [number async for number in progress([1, 2])] == [1, 2]
    with pytest.raises(TypeError, match="async for"):
        list(progress(pieces()))


async def test_a_short_lease_is_renewed_while_much_progress_is_made(tmp_path: Path) -> None:
    @task
    async def busy_for_long() -> None:
        for _ in progress(range(300)):
            await asyncio.sleep(0.01)

    async with working(an_engine(tmp_path), lease=1):
        record = await finished(await busy_for_long.enqueue())
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1)


async def test_a_cancelled_task_has_no_result(tmp_path: Path) -> None:
    async with working(an_engine(tmp_path)):
        handle = await count_slowly.enqueue(5)
        await until_async(lambda: _running(handle))
        await handle.cancel()
        with pytest.raises(TaskFailed, match="cancelled"):
            await handle.result(timeout=10)


async def _running(handle: Any) -> bool:
    return (await handle.status()).state is State.RUNNING
