"""The processes themselves: kept as long as they are needed, and no longer."""

from datetime import UTC, datetime, timedelta

import pytest

from afterwards import State, TaskContext
from afterwards.core.errors import ProcessDied
from afterwards.core.settling import Outcome, Raised, Succeeded
from afterwards.core.task import FailureKind, Task
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


async def test_one_that_does_not_begin_is_a_crash() -> None:
    outcome = await asked(ProcessPool(1, leave_at_once))
    assert isinstance(outcome, Raised) and isinstance(outcome.error, ProcessDied)
    assert outcome.kind is FailureKind.CRASHED
    assert "exit status 7" in str(outcome.error)
