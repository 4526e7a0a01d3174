"""A function that kills its process ends, and takes nobody with it."""

import asyncio
from pathlib import Path

import httpx
import pytest

from afterwards import State
from afterwards.core.task import FailureKind, Task
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine
from chaos.server import TIMEOUT, Server


async def supervised(server: Server, database: Path) -> list[Task]:
    """Start the server whenever it has died, until everything has finished. Returns all tasks."""
    async with SQLiteEngine(database) as engine, asyncio.timeout(TIMEOUT * 2):
        while True:
            tasks = await engine.find(Query())
            if all(task.state.finished for task in tasks):
                return tasks
            if not server.running:
                server.start()
            await asyncio.sleep(0.05)


@pytest.mark.timeout(180)  # five starts of a server
@pytest.mark.parametrize("poison", ["kill_the_process", "leave_the_process"])
def test_poison_fails_after_three_crashes_and_its_neighbours_succeed(poison: str, tmp_path: Path) -> None:
    database = tmp_path / "tasks.db"
    with Server("chaos.apps.poison:app", folder=tmp_path, environment={"CHAOS_DATABASE": str(database)}) as server:
        server.wait_until_it_serves()
        httpx.post(f"{server.url}/poison/{poison}", timeout=TIMEOUT).raise_for_status()
        tasks = asyncio.run(supervised(server, database))
    [poisoned] = [task for task in tasks if task.name == poison]
    innocent = [task for task in tasks if task.name == "harmless"]
    assert poisoned.state is State.FAILED
    assert poisoned.crashed == 3, "as the only suspect, and beside nothing that was lost before"
    assert {failure.kind for failure in poisoned.failures} == {FailureKind.CRASHED}
    assert [task.state for task in innocent] == [State.SUCCEEDED] * 10
    assert sum(task.crashed for task in innocent) == 0, "nobody else is blamed"
    assert max(len(task.failures) for task in innocent) <= 2, "two losses make a suspect, and those run one at a time"
