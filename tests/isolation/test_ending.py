"""What a function in a process of its own ends as, however it ends."""

import asyncio
import logging
import time
from datetime import timedelta
from pathlib import Path

import pytest

from afterwards import State
from afterwards.core.task import FailureKind, Task
from face.serving import as_stored, finished, until, until_async, working
from isolation import functions
from isolation.looking import lives, pid_in

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


async def test_at_its_timeout_it_is_killed(url: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with working(url):
        record = await finished(await functions.write_pid_and_hang.enqueue(str(file)))
        pid = pid_in(file)
        assert pid
        await until(lambda: not lives(pid))
        assert await (await functions.add.enqueue(1)).result(timeout=20) == 3, "the next one has a process"
    [failure] = record.failures
    assert (record.state, failure.kind, failure.type) == (State.FAILED, FailureKind.TIMED_OUT, "TimeoutError")
    assert "timeout of 2 s" in failure.message


async def test_a_timeout_may_be_longer_than_the_system_waits_at_once(url: str) -> None:
    async with working(url):
        assert await (await functions.add.options(timeout=timedelta(days=60)).enqueue(1)).result(timeout=20) == 3


async def test_at_its_timeout_it_is_killed_even_if_it_holds_the_gil(url: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with working(url):
        record = await finished(await functions.hold_the_gil.options(timeout=2).enqueue(str(file), 60))
        ended = time.monotonic()
        pid = pid_in(file)
        assert pid
        await until(lambda: not lives(pid))
        assert time.monotonic() - ended < 20  # it would hold it for ever
    assert [failure.kind for failure in record.failures] == [FailureKind.TIMED_OUT]


async def test_a_cancel_reaches_check_cancelled(url: str, tmp_path: Path) -> None:
    file = tmp_path / "said"
    async with working(url):
        handle = await functions.stop_when_asked.enqueue(str(file))
        await until(file.exists)
        await handle.cancel("enough")
        record = await finished(handle)
        assert await (await functions.add.enqueue(1)).result(timeout=20) == 3
    assert (record.state, record.reason) == (State.CANCELLED, "enough")
    assert file.read_text() == "told: enough\n"


async def test_a_cancel_that_is_not_heard_kills_it_after_a_moment(url: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with working(url):
        handle = await functions.write_pid_and_wait.enqueue(str(file), str(tmp_path / "never"))
        pid = await until(lambda: pid_in(file))
        await handle.cancel("enough")
        record = await finished(handle)
        assert not lives(pid)
    assert (record.state, record.reason, record.failures) == (State.CANCELLED, "enough", ())


async def test_a_cancel_from_elsewhere_arrives_with_the_heartbeat(url: str, tmp_path: Path) -> None:
    file = tmp_path / "said"
    async with working(url, worker=False) as elsewhere, working(url, lease=0.3):
        handle = await functions.stop_when_asked.enqueue(str(file))
        await until(file.exists)
        await (await elsewhere.get(handle.id)).cancel("from elsewhere")
        assert (await finished(handle)).reason == "from elsewhere"
    assert file.read_text() == "told: from elsewhere\n"


async def test_at_the_end_of_the_grace_period_it_is_killed_and_given_back(url: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with working(url, worker=False) as elsewhere:
        async with working(url, grace=0.1):
            handle = await functions.write_pid_and_wait.enqueue(str(file), str(tmp_path / "never"))
            pid = await until(lambda: pid_in(file))
            begun = time.monotonic()
        assert time.monotonic() - begun < 5
        await until(lambda: not lives(pid))
        record = await as_stored(await elsewhere.get(handle.id))
    assert (record.state, record.failed) == (State.QUEUED, 0)
    assert [failure.kind for failure in record.failures] == [FailureKind.RELEASED]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (functions.read_address_zero.enqueue, "killed by SIGSEGV"),
        (lambda: functions.leave.enqueue(3), "ended with exit status 3"),
        (lambda: functions.leave.enqueue(0), "ended with exit status 0"),
    ],
)
async def test_its_death_ends_the_attempt_and_no_other(url: str, tmp_path: Path, how, said: str) -> None:
    async with working(url):
        other = await functions.write_pid_and_wait.enqueue(str(tmp_path / "pid"), str(tmp_path / "go"))
        await until((tmp_path / "pid").exists)
        handle = await how()
        await finished(handle)
        record = await as_stored(handle)
        (tmp_path / "go").touch()
        assert await other.result(timeout=20)
    [failure] = record.failures
    assert (record.state, record.failed, record.crashed) == (State.FAILED, 1, 0)
    assert (failure.kind, failure.type) == (FailureKind.CRASHED, "ProcessDied")
    assert said in failure.message


async def test_a_death_is_retried(url: str, tmp_path: Path) -> None:
    async with working(url):
        handle = await functions.die_once.enqueue(str(tmp_path / "died"))
        assert await handle.result(timeout=20) == "alive"
        [failure] = (await handle.status()).failures
    assert "killed by SIGKILL, as the system does when memory runs out" in failure.message


async def test_a_death_is_not_retried_where_a_crash_is_not(url: str) -> None:
    async with working(url):
        record = await finished(await functions.die_and_stay_dead.enqueue())
    assert (record.state, record.attempt) == (State.FAILED, 1)


@pytest.mark.parametrize(
    ("what", "type", "attempts"), [("paper", "OutOfPaper", 2), ("ink", "OutOfInk", 1), ("else", "ValueError", 1)]
)
async def test_its_own_exceptions_decide_on_a_retry(url: str, what: str, type: str, attempts: int) -> None:
    async with working(url):
        record = await finished(await functions.print_out.enqueue(what))
    assert (record.state, record.attempt) == (State.FAILED, attempts)
    failure = record.failures[-1]
    assert (failure.kind, failure.type, failure.message) == (FailureKind.RAISED, type, f"no {what}")
    assert failure.traceback.splitlines()[1].endswith("in print_out"), "it begins at the user's first line"


async def test_the_log_shows_what_it_raised(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with working(url):
            await finished(await functions.print_out.enqueue("ink"))
    assert "OutOfInk: no ink" in caplog.text
    assert "in print_out" in caplog.text


async def test_it_may_ask_for_a_time_to_run_again(url: str) -> None:
    async with working(url):
        retried, snoozed = await functions.retry_after.enqueue(), await functions.snooze.enqueue()

        async def both() -> list[Task] | None:
            records = [await as_stored(retried), await as_stored(snoozed)]
            return records if all(record.state is State.SCHEDULED and record.attempt for record in records) else None

        first, second = await until_async(both)
    for record in (first, second):
        assert record.run_at - record.started_at > timedelta(seconds=1234)
    assert (first.failed, first.failures[0].type) == (1, "RetryAfter")
    assert (second.failed, second.failures) == (0, ())


async def test_it_may_cancel_itself_and_exit(url: str) -> None:
    async with working(url):
        cancelled = await finished(await functions.cancel.enqueue())
        exited = await finished(await functions.exit_politely.enqueue())
    assert (cancelled.state, cancelled.reason) == (State.CANCELLED, "no need")
    assert (exited.failures[0].kind, exited.failures[0].type) == (FailureKind.RAISED, "SystemExit")


async def test_one_that_holds_the_gil_leaves_the_loop_alone(url: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with working(url):
        handle = await functions.hold_the_gil.enqueue(str(file), 60)  # it would take longer than anybody lives
        pid = await until(lambda: pid_in(file))
        longest, last = 0.0, time.monotonic()
        for _ in range(20):
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert longest < 0.5
        await handle.cancel()
        await finished(handle)
        assert not lives(pid)
