"""Who is told when a task has failed for good, and what is in the log."""

import logging
from typing import Any

import pytest

from afterwards import FailedTask, Retry, State, task
from afterwards.core.task import FailureKind
from face.diary import said as the_diary
from face.serving import finished, records, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task
async def tell_durably(failed: FailedTask) -> None:
    the_diary.append(f"told of {failed.name}: {failed.type}: {failed.message}")


async def tell_on_the_loop(failed: FailedTask) -> None:
    the_diary.append(f"told of {failed.name}: {failed.type}: {failed.message}")


def tell_in_a_thread(failed: FailedTask) -> None:
    the_diary.append(f"told of {failed.name}: {failed.type}: {failed.message}")


def tell_badly(failed: FailedTask) -> None:
    the_diary.append("told")
    raise RuntimeError("cannot tell")


def tell_and_exit(failed: FailedTask) -> None:
    the_diary.append("told")
    raise SystemExit(3)


async def tell_and_exit_on_the_loop(failed: FailedTask) -> None:
    tell_and_exit(failed)


@task(on_failure=tell_durably, retries=Retry(1, wait=0))
async def watched_by_a_task() -> None:
    the_diary.append("ran")
    raise ValueError("broken")


@task(on_failure=tell_on_the_loop, retries=Retry(1, wait=0))
async def watched_by_a_coroutine() -> None:
    the_diary.append("ran")
    raise ValueError("broken")


@task(on_failure=tell_in_a_thread, retries=Retry(1, wait=0))
def watched_by_a_function() -> None:
    the_diary.append("ran")
    raise ValueError("broken")


@task(on_failure=tell_badly)
async def watched_badly() -> None:
    raise ValueError("broken")


@task(on_failure=tell_and_exit)
async def watched_by_one_who_exits() -> None:
    raise ValueError("broken")


@task(on_failure=tell_and_exit_on_the_loop)
async def watched_by_a_coroutine_that_exits() -> None:
    raise ValueError("broken")


@task(on_failure=tell_durably)
async def cancelled_or_fine(cancel: bool) -> None:
    if cancel:
        from afterwards import Cancel

        raise Cancel("no failure")


@task
async def returns_what_cannot_be_stored() -> Any:
    return object()


@pytest.mark.parametrize("function", [watched_by_a_task, watched_by_a_coroutine, watched_by_a_function])
async def test_it_is_told_once_after_the_last_attempt(url: str, said: list[str], function: Any) -> None:
    async with working(url):
        await function.enqueue()
        await until(lambda: len(said) == 3)
    assert said == ["ran", "ran", f"told of {function.name}: ValueError: broken"]


async def test_a_task_function_is_told_durably(url: str, said: list[str]) -> None:
    async with working(url) as tasks:
        await watched_by_a_task.enqueue()
        await until(lambda: len(said) == 3)
        failed, notice = await records(tasks)
    assert (failed.state, failed.failures[-1].kind) == (State.FAILED, FailureKind.RAISED)
    assert notice.name == "tell_durably"
    assert failed.id in notice.arguments


async def test_nobody_is_told_of_success_and_cancellation(url: str, said: list[str]) -> None:
    async with working(url) as tasks:
        for cancel in (True, False):
            await finished(await cancelled_or_fine.enqueue(cancel))
        assert len(await records(tasks)) == 2


@pytest.mark.parametrize("function", [watched_badly, watched_by_one_who_exits, watched_by_a_coroutine_that_exits])
async def test_one_who_raises_when_told_changes_nothing(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture, function: Any
) -> None:
    async with working(url):
        record = await finished(await function.enqueue())
        await until(lambda: said == ["told"])
        await until(lambda: [r for r in caplog.records if f"on_failure function of {function.name}" in r.message])
    assert record.state is State.FAILED


async def test_failures_and_retries_are_in_the_log_with_their_traceback(
    url: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with working(url):
        await finished(await watched_by_a_function.enqueue())
    told = [record for record in caplog.records if "watched_by_a_function" in record.message]
    assert [record.levelno for record in told] == [logging.WARNING, logging.ERROR]
    assert all(record.exc_info for record in told)
    assert "retry 1 of 1" in told[0].message


async def test_a_result_that_cannot_be_stored_is_a_warning_and_no_failure(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(url):
        record = await finished(await returns_what_cannot_be_stored.enqueue())
    assert (record.state, record.result) == (State.SUCCEEDED, None)
    assert [r.levelname for r in caplog.records if "is not stored; the task has succeeded" in r.message] == ["WARNING"]


@task
async def takes_something_else(number: int) -> None: ...


@task(on_failure=takes_something_else)
async def watched_by_the_wrong_one() -> None:
    raise ValueError("broken")


async def test_a_task_function_that_cannot_take_what_it_is_told_is_named_and_the_failure_is_stored(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(url):
        record = await finished(await watched_by_the_wrong_one.enqueue())
    assert record.state is State.FAILED
    assert [r for r in caplog.records if "on_failure function of watched_by_the_wrong_one" in r.message]
