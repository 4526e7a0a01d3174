"""A function in a process of its own ends in its record whatever it raises, returns, shows or starts."""

import logging
from pathlib import Path
from typing import Any

import pytest

from afterwards import State
from afterwards.core.task import FailureKind
from face.serving import finished, until, working
from isolation import functions
from isolation.looking import lives, pid_in

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (functions.start_a_program_and_hang, FailureKind.TIMED_OUT),
        (functions.start_a_program_and_crash, FailureKind.CRASHED),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_what_it_had_started_is_killed_with_it(
    url: str, tmp_path: Path, function: Any, kind: FailureKind
) -> None:
    file = tmp_path / "pid"
    async with working(url):
        record = await finished(await function.enqueue(str(file)))
        pid = pid_in(file)
        assert pid
        await until(lambda: not lives(pid))
    assert [failure.kind for failure in record.failures] == [kind]


async def test_a_cancel_kills_what_it_had_started(url: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with working(url):
        handle = await functions.start_a_program_and_wait.enqueue(str(file))
        await until(lambda: pid_in(file))
        await handle.cancel("enough")
        assert (await finished(handle)).state is State.CANCELLED
        pid = pid_in(file)
        assert pid
        await until(lambda: not lives(pid))


async def test_an_awaitable_that_it_returns_is_awaited(url: str) -> None:
    async with working(url):
        assert await (await functions.return_a_coroutine.enqueue("given")).result(timeout=20) == "given"
        raised = await finished(await functions.return_a_coroutine_that_raises.enqueue())
        generator = await finished(await functions.return_a_generator.enqueue())
        within = await finished(await functions.return_coroutines_in_lists.enqueue())
    assert (raised.state, raised.failures[0].message) == (State.FAILED, "in the coroutine")
    assert (generator.state, generator.failures[0].type) == (State.FAILED, "TypeError")
    assert (within.state, within.failures[0].type) == (State.FAILED, "TypeError")


async def test_an_exception_that_cannot_be_described_is_its_failure(url: str) -> None:
    logging.disable()  # pytest-xdist cannot send such a line
    try:
        async with working(url):
            hostile = await finished(await functions.raise_hostile.enqueue())
            ended = await finished(await functions.raise_generator_exit.enqueue())
            assert await (await functions.show_what_cannot_be_shown.enqueue()).result(timeout=20) == "done"
    finally:
        logging.disable(logging.NOTSET)
    assert [failure.kind for failure in hostile.failures] == [FailureKind.RAISED]
    assert "Host" in hostile.failures[0].type
    assert (ended.state, ended.failures[0].type) == (State.FAILED, "GeneratorExit")
