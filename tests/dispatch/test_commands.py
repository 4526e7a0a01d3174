"""The command line and the pages, of an application that dispatches to a fleet."""

import json
import subprocess
import sys
from pathlib import Path

from afterwards import State
from afterwards.cli.errors import ExitCode
from dispatch.processes import ENVIRONMENT, ended, fleet, sent, server, stored, write_main
from face.processes import ENVIRONMENT as ALL
from face.processes import Program, eventually, output

STORE = """
import asyncio
import main

async def store() -> None:
    for text in "abc":
        await main.note.enqueue(text)

asyncio.run(store())
"""


def ran(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "afterwards", *arguments]
    return subprocess.run(
        command, cwd=folder, env=ALL | ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_burst_sends_all_there_is_and_runs_nothing(tmp_path: Path) -> None:
    write_main(tmp_path)
    output(STORE, tmp_path, **ENVIRONMENT)
    done = ran(tmp_path, "worker", "--burst")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "dispatcher here, tasks run on the fleet of Spool" in done.stderr
    assert len(sent(tmp_path)) == 3
    assert {task.state for task in stored(tmp_path)} == {State.QUEUED}


def test_it_dispatches_until_it_is_told_to_end(tmp_path: Path) -> None:
    write_main(tmp_path)
    command = [sys.executable, "-m", "afterwards", "worker"]
    with Program(command, tmp_path, AFTERWARDS_WORKER="off", **ENVIRONMENT) as dispatcher, fleet(tmp_path) as process:
        dispatcher.says("dispatcher here")
        output(STORE, tmp_path, **ENVIRONMENT)
        process.writes("a", "b", "c")
        eventually(lambda: all(ended(task) for task in stored(tmp_path)))
        dispatcher.stops()
        assert dispatcher.process.returncode == 0


def test_how_many_run_at_once_is_the_fleet_s(tmp_path: Path) -> None:
    write_main(tmp_path)
    done = ran(tmp_path, "worker", "-c", "3")
    assert done.returncode == ExitCode.USAGE
    assert "run on a fleet (dispatch=Spool)" in done.stderr


def test_a_process_that_dispatches_is_listed_as_such(tmp_path: Path) -> None:
    write_main(tmp_path, options='dashboard="/ops", auth=Depends(lambda: "ada")')
    with server(tmp_path) as web:
        web.get("/metrics")  # waits until it serves: the file is there
        [row] = eventually(lambda: json.loads(ran(tmp_path, "workers", "--json").stdout))
        assert (row["slots"], row["dispatches"], row["names"]) == (0, True, [])
        assert "dispatches" in ran(tmp_path, "workers").stdout
        assert json.loads(ran(tmp_path, "stats", "--json").stdout)["workers"] == 0
        assert "1 process to send tasks to a fleet" in ran(tmp_path, "doctor").stdout
        page = web.get("/ops/workers").text
        assert "dispatches to a fleet" in page
        assert "No worker of the fleet is alive" in page
        metrics = web.get("/metrics").text
        assert "\nafterwards_workers 0" in metrics
        assert "\nafterwards_dispatchers 1" in metrics
        with fleet(tmp_path, "--slots", "2"):
            eventually(lambda: "0 of 2" in (shown := web.get("/ops/workers").text) and "No worker" not in shown)
