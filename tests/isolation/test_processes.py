"""The processes themselves: kept as long as they are needed, and no longer."""

import os
import signal
from datetime import UTC, datetime, timedelta

import pytest

from afterwards import State, TaskContext
from afterwards.core.errors import ProcessDied
from afterwards.core.settling import Outcome, Raised, Succeeded
from afterwards.core.shortage import LongShortage, Shortage
from afterwards.core.task import FailureKind, Task
from afterwards.execution import process_handle
from afterwards.execution.process_handle import Main
from afterwards.execution.process_messages import Pipe
from afterwards.execution.process_pool import ProcessPool
from afterwards.tasks.process_main import main
from face.serving import until
from isolation import functions
from isolation.looking import lives

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


async def asked(processes: ProcessPool) -> Outcome:
    """The outcome of a call that says which process it ran in."""
    task = Task(id="1", name="pid", arguments="{}", created_at=datetime.now(UTC), state=State.RUNNING, attempt=1)
    return await processes.run(functions.pid, TaskContext(functions.pid, task))


async def pid_of(processes: ProcessPool) -> int:
    outcome = await asked(processes)
    assert isinstance(outcome, Succeeded) and outcome.result
    return int(outcome.result)


def leave_at_once(pipe: Pipe) -> None:
    raise SystemExit(7)


def be_killed_at_once(pipe: Pipe) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_ready_and_killed(pipe: Pipe) -> None:
    """As when memory runs out while the function's module is imported."""
    pipe.send_bytes(b'{"ready": true}')
    pipe.recv_bytes()
    os.kill(os.getpid(), signal.SIGKILL)


def never_begin(pipe: Pipe) -> None:
    pipe.recv_bytes()


async def test_one_that_was_idle_for_a_while_ends() -> None:
    processes = ProcessPool(1, main, idle=timedelta(seconds=0.2))
    first = await pid_of(processes)
    await until(lambda: not lives(first))
    second = await pid_of(processes)
    assert second != first
    await until(lambda: not lives(second))


async def test_one_that_is_not_idle_for_so_long_stays() -> None:
    processes = ProcessPool(1, main, idle=timedelta(minutes=1))
    first = await pid_of(processes)
    assert await pid_of(processes) == first
    assert lives(first)
    processes.close()
    await until(lambda: not lives(first))


async def test_one_that_ends_by_itself_before_it_begins_is_refused() -> None:
    outcome = await asked(ProcessPool(1, leave_at_once))
    assert isinstance(outcome, Raised) and isinstance(outcome.error, ProcessDied)
    assert outcome.kind is FailureKind.REFUSED
    assert "exit status 7" in str(outcome.error)


@pytest.mark.parametrize("dying", [be_killed_at_once, be_ready_and_killed])
async def test_one_that_is_killed_before_it_begins_is_a_shortage(dying: Main) -> None:
    with pytest.raises(Shortage, match="its process was killed by SIGKILL"):
        await asked(ProcessPool(1, dying))


async def test_one_that_is_killed_between_two_calls_is_replaced() -> None:
    processes = ProcessPool(1, main)
    first = await pid_of(processes)
    os.kill(first, signal.SIGKILL)
    await until(lambda: not lives(first))
    with pytest.raises(Shortage):
        await asked(processes)
    assert await pid_of(processes) != first
    processes.close()


async def test_one_that_does_not_begin_for_long_is_a_long_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_handle, "BEGINNING", 0.1)
    with pytest.raises(LongShortage, match=r"did not begin it within 0.1 s"):
        await asked(ProcessPool(1, never_begin))


async def test_one_may_take_longer_than_the_system_waits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_handle, "LONGEST_POLL", 0.001)
    processes = ProcessPool(1, main)
    await pid_of(processes)
    processes.close()
