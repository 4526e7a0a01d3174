"""Reports on how an attempt ended, and what became of the worker that ran it."""

import os
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from afterwards import InvalidOption, Retry, State, task
from afterwards.core.task import FailureKind
from face.diary import note
from face.diary import said as the_diary
from face.serving import finished, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


class TwoArguments(Exception):
    """Can be pickled, and not be read again."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.lock = threading.Lock()  # and this one cannot even be pickled


class NoException(BaseException):
    def __init__(self, one: int, two: int) -> None:
        super().__init__()


@task(retries=Retry(1, wait=0))
async def raise_two_arguments() -> None:
    raise TwoArguments(42, "gone")


@task(retries=Retry(1, wait=0))
def raise_two_arguments_in_a_thread() -> None:
    raise TwoArguments(42, "gone")


@task(run_in="process", retries=Retry(1, wait=0))
def raise_two_arguments_elsewhere() -> None:
    raise TwoArguments(42, "gone")


@pytest.mark.parametrize(
    "function",
    [raise_two_arguments, raise_two_arguments_in_a_thread, raise_two_arguments_elsewhere],
    ids=["loop", "thread", "process"],
)
async def test_an_exception_that_cannot_be_pickled_is_retried_and_recorded(
    url: str, said: list[str], function: Any
) -> None:
    """A retry with an exception that could be pickled and not be read again ended the whole worker.

    https://github.com/celery/celery/issues/6990
    """
    async with working(url):
        record = await finished(await function.enqueue())
        assert [(one.type, one.message, one.kind) for one in record.failures] == [
            ("TwoArguments", "42 gone", FailureKind.RAISED)
        ] * 2
        assert await (await note.enqueue("next")).result(timeout=10) == "next"


@task
async def raise_no_exception() -> None:
    raise NoException(1, 2)


@task
def raise_no_exception_in_a_thread() -> None:
    raise NoException(1, 2)


@pytest.mark.parametrize("function", [raise_no_exception, raise_no_exception_in_a_thread], ids=lambda one: one.name)
async def test_what_is_no_exception_ends_its_task_alone(url: str, said: list[str], function: Any) -> None:
    """An error that derives from BaseException and has arguments of its own ended the worker at once.

    https://github.com/spotify/luigi/issues/1227
    """
    async with working(url, concurrency=1, threads=1):
        for _ in range(3):
            record = await finished(await function.enqueue())
            assert (record.state, record.failures[-1].type) == (State.FAILED, "NoException")
        assert await (await note.enqueue("next")).result(timeout=10) == "next"


@task(retries=Retry(2, wait=0))
async def quote(answer: str) -> None:
    raise ConnectionError(f"it said {answer}\0 and \ud83e")


async def test_a_message_with_a_nul_is_recorded_and_the_task_is_retried(url: str) -> None:
    """The store refused the message of a failure for its NUL: the job was neither retried nor failed, for ever.

    https://github.com/fazer-ai/agents/issues/243
    """
    async with working(url):
        record = await finished(await quote.enqueue("\0"))
    assert (record.state, record.attempt, len(record.failures)) == (State.FAILED, 3, 3)
    assert {failure.type for failure in record.failures} == {"ConnectionError"}
    assert record.failures[0].message.startswith("it said")


@task(retries=Retry(40, wait=0.0001, factor=1e9, max_wait=0.001, jitter=False))
async def never_reaches_it() -> None:
    raise ConnectionError("away")


async def test_a_wait_that_grows_past_all_numbers_is_the_longest_one(url: str) -> None:
    """After 16 retries the wait was no number any more, and the job disappeared.

    https://github.com/procrastinate-org/procrastinate/issues/1462
    """
    async with working(url):
        record = await finished(await never_reaches_it.enqueue())
    assert (record.state, record.attempt) == (State.FAILED, 41)
    assert {failure.type for failure in record.failures} == {"ConnectionError"}


@task(timeout=0.05)
def outlast_and_raise() -> None:
    time.sleep(0.1)  # what the task is about, as any call that cannot be interrupted
    raise OSError("the call was interrupted")


@task
def note_in_the_only_thread(text: str) -> str:
    the_diary.append(text)
    return text


async def test_a_thread_that_raises_after_its_timeout_is_there_for_the_next_task(url: str, said: list[str]) -> None:
    """A thread that came back after its time limit, and raised something else, was lost to the worker.

    https://github.com/Bogdanp/dramatiq/issues/445
    """
    async with working(url, threads=1):
        late = await outlast_and_raise.enqueue()
        behind = await note_in_the_only_thread.enqueue("next")
        assert [one.kind for one in (await finished(late)).failures] == [FailureKind.TIMED_OUT]
        assert await behind.result(timeout=10) == "next"


@task(timeout=0.3, retries=Retry(1, wait=0))
async def hang_once() -> str:
    the_diary.append("began")
    await until(lambda: len(the_diary) > 1)
    return "ended"


async def test_what_timed_out_is_retried_as_what_raised(url: str, said: list[str]) -> None:
    """A job that timed out was failed for good, whatever number of retries it had.

    https://github.com/python-arq/arq/issues/401
    """
    async with working(url):
        record = await finished(await hang_once.enqueue())
    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert [failure.kind for failure in record.failures] == [FailureKind.TIMED_OUT]


@task(run_in="process")
def crash() -> None:
    os._exit(11)


@task(run_in="process")
def live_on(file: str) -> str:
    deadline = time.monotonic() + 20
    while not os.path.exists(file) and time.monotonic() < deadline:
        time.sleep(0.005)
    return "well"


async def test_a_process_that_crashes_ends_its_own_task_alone(url: str, tmp_path: Any) -> None:
    """One worker process that crashed had all others ended, with whatever they ran.

    https://github.com/Bogdanp/dramatiq/issues/505
    """
    async with working(url):
        other = await live_on.enqueue(str(tmp_path / "go"))
        record = await finished(await crash.enqueue())
        assert (record.state, record.failures[-1].type) == (State.FAILED, "ProcessDied")
        (tmp_path / "go").touch()
        assert await other.result(timeout=20) == "well"
        assert (await other.status()).attempt == 1


@task(retries=Retry(1, wait=0), unique="{things}")
async def shift(things: list[str]) -> list[str]:
    the_diary.append(",".join(things))
    things.pop()
    if len(the_diary) == 1:
        raise ConnectionError("again")
    return things


async def test_what_a_task_does_to_its_arguments_is_seen_by_nobody_else(url: str, said: list[str]) -> None:
    """A job changed its own arguments, and its lock was never found again under the new ones.

    https://github.com/lantins/resque-lock-timeout/issues/29
    """
    async with working(url):
        things = ["a", "b"]
        first = await shift.enqueue(things)
        things.append("c")
        assert await first.result(timeout=10) == ["a"]
        assert said == ["a,b", "a,b"], "the second attempt has what was asked for"
        second = await shift.enqueue(["a", "b"])
        assert second.id != first.id
        assert await second.result(timeout=10) == ["a"]


async def test_an_instant_of_another_time_zone_is_that_instant_and_a_naive_one_is_refused(
    url: str, said: list[str]
) -> None:
    """A task ran an hour too early, for its time was taken without its zone.

    https://github.com/coleifer/huey/issues/139
    """
    east = timezone(timedelta(hours=14))
    at = datetime.now(east) + timedelta(hours=2)
    async with working(url):
        record = await (await note.options(run_at=at).enqueue("later")).status()
        assert (record.state, record.run_at) == (State.SCHEDULED, at)
        past = datetime.now(UTC).astimezone(timezone(timedelta(hours=-12)))
        assert await (await note.options(run_at=past).enqueue("now")).result(timeout=10) == "now"
        with pytest.raises(InvalidOption, match="run_at="):
            note.options(run_at=at.replace(tzinfo=None))
