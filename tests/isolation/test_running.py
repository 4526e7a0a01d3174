"""A function in a process of its own is called as any other, and what it does comes back."""

import logging
import os
from pathlib import Path

import pytest

from afterwards import State
from face.serving import finished, until, until_async, working
from isolation import functions
from isolation.looking import lives

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


async def test_arguments_go_there_and_the_result_comes_back(url: str) -> None:
    async with working(url):
        assert await (await functions.add.enqueue(1)).result(timeout=20) == 3
        assert await (await functions.add.enqueue(1, b=5)).result(timeout=20) == 6
        assert await (await functions.pid.enqueue()).result(timeout=20) != os.getpid()
        assert await (await functions.in_a_thread.enqueue()).result(timeout=20) == os.getpid()


async def test_it_knows_its_attempt(url: str) -> None:
    async with working(url):
        handle = await functions.describe.enqueue()
        said = await handle.result(timeout=20)
        record = await handle.status()
    seconds = said.pop("seconds")
    assert said == {
        "id": handle.id,
        "name": "describe",
        "attempt": 1,
        "enqueued_at": record.created_at.isoformat(),
    }
    assert record.started_at is not None
    assert seconds == pytest.approx(60 + (record.started_at - record.created_at).total_seconds())


async def test_what_it_leaves_in_its_context_is_not_there_for_the_next(url: str) -> None:
    async with working(url):
        first = await (await functions.say_in_this_context.enqueue("first")).result(timeout=20)
        second = await (await functions.say_in_this_context.enqueue("second")).result(timeout=20)
    assert first == ["at the import", "first", first[-1]]
    assert second == ["at the import", "second", first[-1]]  # the same process


async def test_its_progress_is_seen_while_it_runs(url: str, tmp_path: Path) -> None:
    async with working(url), working(url, worker=False) as elsewhere:
        handle = await functions.show_progress.enqueue(str(tmp_path / "go"))

        async def shown() -> bool:
            record = await elsewhere.get(handle.id)
            progress = (await record.status()).progress
            return progress is not None and (progress.done, progress.total, progress.description) == (42, 100, "rows")

        await until_async(shown)
        (tmp_path / "go").touch()
        record = await finished(handle)
    assert record.progress is not None
    assert record.progress.done == 100


async def test_a_process_is_used_again(url: str) -> None:
    async with working(url):
        pids = [await (await functions.pid.enqueue()).result(timeout=20) for _ in range(3)]
    assert len(set(pids)) == 1


async def test_there_are_no_more_processes_than_threads(url: str, tmp_path: Path) -> None:
    go = str(tmp_path / "go")
    async with working(url, threads=2):
        handles = [await functions.write_pid_and_wait.enqueue(str(tmp_path / f"{n}.pid"), go) for n in range(4)]
        await until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        (tmp_path / "go").touch()
        pids = [await handle.result(timeout=20) for handle in handles]
    assert len(set(pids)) == 2


async def test_a_result_that_cannot_be_stored_is_lost_and_said(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with working(url):
            record = await finished(await functions.give_an_object.enqueue())
    assert (record.state, record.result) == (State.SUCCEEDED, None)
    assert any("the result of give_an_object" in line.message and "object" in line.message for line in caplog.records)


async def test_it_is_the_main_thread_of_its_process(url: str) -> None:
    async with working(url):
        assert await (await functions.run_a_loop.enqueue()).result(timeout=20) == "MainThread"


async def test_signals_are_for_the_parent_but_programs_hear_them(url: str) -> None:
    async with working(url):
        assert await (await functions.stay_deaf.enqueue()).result(timeout=20) == "still here"
        assert await (await functions.end_a_program.enqueue()).result(timeout=20) < 0


async def test_the_processes_end_with_the_worker_whatever_threads_they_have(url: str) -> None:
    async with working(url):
        pids = [await (await f.enqueue()).result(timeout=20) for f in (functions.pid, functions.leave_a_thread)]
        assert all(map(lives, pids))
    assert not any(map(lives, pids))


async def test_their_exit_handlers_run_before_the_worker_has_ended(url: str, tmp_path: Path) -> None:
    async with working(url):
        await (await functions.write_at_exit.enqueue(str(tmp_path / "exit"))).result(timeout=20)
    assert (tmp_path / "exit").read_text() == "exited"
