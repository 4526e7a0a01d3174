"""``afterwards move``, run as operators run it."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from time import monotonic, sleep

import pytest

from afterwards.cli.errors import ExitCode
from afterwards.core.task import State, Task
from afterwards.engine import Query
from afterwards.engines.postgres import PostgresEngine
from afterwards.engines.sqlite import SQLiteEngine
from face.processes import ENVIRONMENT, TIMEOUT, Program, eventually, output, uvicorn, write_application
from servers.postgres import PASSWORD, PostgresServer

SOURCE, DESTINATION = "sqlite:///afterwards.db", "sqlite:///new.db"

STORE = """
import asyncio, main

async def store() -> None:
    await main.tasks.enqueue_many([main.note.call(str(number)) for number in range({count})])
    for number in range({chains}):
        await main.chain(*(main.note.call(f"{{number}}-{{step}}") for step in range(5)))
    await main.tasks.client.close()

asyncio.run(store())
"""

SMALL_BATCHES = """
import asyncio, os, sys
from itertools import count
from afterwards.cli import mover
from afterwards.cli.main import run
mover.BATCH = 5
started = mover.refuse_live_workers
numbers = count(1)

async def refuse_live_workers(source) -> None:
    await started(source)
    print("moving", flush=True)
    if next(numbers) == 2:
        while os.path.exists("stay"):
            await asyncio.sleep(0.01)

mover.refuse_live_workers = refuse_live_workers
sys.argv = ["afterwards", "move", sys.argv[1], sys.argv[2], "--yes"]
sys.exit(run())
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "afterwards", "move", *arguments]


def move(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*(arguments or (SOURCE, DESTINATION, "--yes"))),
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def answer_to(folder: Path, answer: bytes, *arguments: str) -> tuple[int, str]:
    """Give an answer at a terminal. Returns the exit code, and the text on standard error."""
    ours, theirs = pty.openpty()
    asked = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=ENVIRONMENT,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(ours, answer)
    _, error = asked.communicate(timeout=TIMEOUT)
    os.close(ours)
    os.close(theirs)
    return asked.returncode, error


def tasks_in(store: Path | str) -> list[Task]:
    """All tasks in a file or at the URL of a server, in the order stored."""

    async def listed() -> list[Task]:
        async with SQLiteEngine(store) if isinstance(store, Path) else PostgresEngine(store) as engine:
            return await engine.find(Query(limit=100_000))

    return asyncio.run(listed())[::-1]


def store(folder: Path, count: int, chains: int = 0) -> None:
    output(STORE.format(count=count, chains=chains), folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an application, and nothing stored."""
    write_application(tmp_path, "from afterwards import chain\ntasks = Afterwards(app)")
    return tmp_path


def test_all_tasks_are_moved_and_run_at_the_new_url(folder: Path) -> None:
    store(folder, 1200, chains=3)
    before = tasks_in(folder / "afterwards.db")
    done = move(folder)
    assert (done.returncode, done.stderr) == (ExitCode.DONE, "")
    assert done.stdout.startswith("moved 1,215 tasks from sqlite:///")
    assert tasks_in(folder / "afterwards.db") == []
    assert tasks_in(folder / "new.db") == before
    again = move(folder)
    assert (again.returncode, again.stdout[:13]) == (ExitCode.DONE, "moved 0 tasks")
    told = json.loads(move(folder, SOURCE, DESTINATION, "--yes", "--json").stdout)
    assert (told["tasks"], told["known"], told["left"], told["finished"]) == (0, [], 0, True)
    worker = [sys.executable, "-m", "afterwards", "worker", "--burst"]
    subprocess.run(worker, cwd=folder, env=ENVIRONMENT | {"AFTERWARDS_URL": DESTINATION}, timeout=TIMEOUT, check=True)
    lines = (folder / "diary.txt").read_text().splitlines()
    assert len(lines) == len({*lines}) == 1215


def test_files_pauses_and_schedules_are_moved(folder: Path) -> None:
    program = """
    import asyncio
    from io import BytesIO
    from fastapi import UploadFile
    from afterwards import Afterwards, task

    @task
    async def read(file: UploadFile) -> None: ...

    async def main() -> None:
        tasks = Afterwards(url="sqlite:///afterwards.db")
        await read.enqueue(UploadFile(BytesIO(b"x" * 3_000_000), filename="file"))
        await tasks.pause(read)
        engine = await tasks.client.open()
        await engine.register_schedules({"read": "every 1:00:00"})
        await tasks.client.close()

    asyncio.run(main())
    """
    output(program, folder)
    done = move(folder)
    assert "moved 1 task, 1 schedule, 3.0 MB of files" in done.stdout
    paused = "import main, asyncio\nprint(asyncio.run(main.tasks.paused()).names)"
    assert "read" in output(paused, folder, AFTERWARDS_URL=DESTINATION)


def test_a_task_that_is_there_already_stays_as_it_is_and_is_named(folder: Path) -> None:
    store(folder, 3)
    (folder / "new.db").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-m", "afterwards", "backup", "copy.db"], cwd=folder, env=ENVIRONMENT, timeout=TIMEOUT
    )
    assert done.returncode == 0
    moved = move(folder, SOURCE, "sqlite:///copy.db", "--yes")
    assert moved.returncode == ExitCode.DONE
    assert "3 tasks with the id of one there stayed out" in moved.stdout
    assert len(tasks_in(folder / "copy.db")) == 3


def test_records_that_cannot_be_read_stay_and_are_counted(folder: Path) -> None:
    store(folder, 3)
    output(
        "import sqlite3\nopened = sqlite3.connect('afterwards.db')\n"
        "opened.execute(\"UPDATE afterwards_tasks SET state = 'resting' WHERE seq = 2\")\nopened.commit()",
        folder,
    )
    done = move(folder)
    assert done.returncode == ExitCode.FAILED
    assert "moved 2 tasks" in done.stdout
    assert "1 task stayed in sqlite:///" in done.stderr


def test_nothing_moves_while_a_worker_of_the_source_lives(folder: Path) -> None:
    with uvicorn(folder) as server:
        server.post("/note/a")
        server.writes("a")
        refused = move(folder)
        assert refused.returncode == ExitCode.FAILED
        assert f"process {server.process.pid} on " in refused.stderr
        assert not (folder / "new.db").exists()
        server.stops()
    assert move(folder).returncode == ExitCode.DONE
    assert len(tasks_in(folder / "new.db")) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((SOURCE, SOURCE, "--yes"), ExitCode.USAGE, "both source and destination"),
        ((SOURCE, "sqlite:///./link.db", "--yes"), ExitCode.USAGE, "both source and destination"),
        (("sqlite:///missing.db", DESTINATION, "--yes"), ExitCode.UNREACHABLE, "there is no file"),
        ((SOURCE, "memory://", "--yes"), ExitCode.USAGE, "in the memory of one process"),
        (("memory://", DESTINATION, "--yes"), ExitCode.USAGE, "in the memory of one process"),
        ((SOURCE, "mongodb://a:secret@b", "--yes"), ExitCode.USAGE, 'no engine for "mongodb"'),
        (("afterwards.db", DESTINATION, "--yes"), ExitCode.USAGE, "is not a URL"),
        ((SOURCE, "sqlite:///nowhere/new.db", "--yes"), ExitCode.UNREACHABLE, "of new.db does not exist"),
        (("sqlite:///main.py", DESTINATION, "--yes"), ExitCode.UNREACHABLE, "not an SQLite database"),
        ((SOURCE, DESTINATION), ExitCode.USAGE, "give --yes"),
        ((SOURCE,), ExitCode.USAGE, "DESTINATION"),
    ],
)
def test_bad_input_gets_a_clear_line_and_makes_no_file(
    folder: Path, arguments: tuple[str, ...], code: ExitCode, said: str
) -> None:
    store(folder, 1)
    (folder / "link.db").symlink_to("afterwards.db")
    before = {*os.listdir(folder)}
    refused = move(folder, *arguments)
    assert refused.returncode == code, refused.stderr
    assert said in refused.stderr and "Traceback" not in refused.stderr and "secret" not in refused.stderr
    assert {*os.listdir(folder)} <= before | {"__pycache__"}
    assert len(tasks_in(folder / "afterwards.db")) == 1


@pytest.mark.parametrize(("answer", "moved"), [(b"n\n", 0), (b"y\n", 3)])
def test_people_are_asked(folder: Path, answer: bytes, moved: int) -> None:
    store(folder, 3)
    code, error = answer_to(folder, answer, SOURCE, DESTINATION)
    assert "This moves 3 tasks from sqlite:///" in error
    assert (code == 0) is bool(moved)
    assert ("nothing was moved" in error) is not bool(moved)
    assert (folder / "new.db").exists() is bool(moved)
    assert len(tasks_in(folder / "afterwards.db")) == 3 - moved


def test_ctrl_c_ends_it_after_a_batch_and_it_goes_on_later(folder: Path) -> None:
    store(folder, 2000)
    (folder / "small.py").write_text(SMALL_BATCHES)
    (folder / "stay").touch()  # or it may be done before the signal arrives
    with Program([sys.executable, "small.py", SOURCE, DESTINATION], folder) as moving:
        moving.says("moving\nmoving")
        moving.signal(signal.SIGINT)
        (folder / "stay").unlink()
        assert moving.ends(TIMEOUT) == ExitCode.FAILED
        assert "interrupted. Nothing is lost: run the same command again" in moving.output
    assert move(folder).returncode == ExitCode.DONE
    assert len(tasks_in(folder / "new.db")) == 2000


@pytest.mark.parametrize("kind", ["file", pytest.param("server", marks=pytest.mark.xdist_group("postgres"))])
def test_killed_again_and_again_beside_a_worker_each_task_runs_once(
    folder: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    random = Random(7)
    url = request.getfixturevalue("postgres_url") if kind == "server" else DESTINATION
    store(folder, 600, chains=60)
    (folder / "small.py").write_text(SMALL_BATCHES)
    worker = [sys.executable, "-m", "afterwards", "worker", "main:app"]
    kills = 0
    deadline = monotonic() + 2 * TIMEOUT
    with Program(worker, folder, AFTERWARDS_URL=url) as working:
        while True:
            assert monotonic() < deadline
            with Program([sys.executable, "small.py", SOURCE, url], folder) as moving:
                eventually(lambda moving=moving: "moving" in moving.output or moving.process.poll() is not None)
                if kills < 8:
                    sleep(random.uniform(0, 0.4))
                    moving.signal(signal.SIGKILL)
                    moving.ends()
                    kills += 1
                    continue
                assert moving.ends(TIMEOUT) == ExitCode.DONE, moving.output
                break
        eventually(lambda: len(working.diary()) >= 900)
        working.stops()
    assert Counter(working.diary()).most_common(1)[0][1] == 1
    assert len(working.diary()) == 900
    assert {task.state for task in tasks_in(url if kind == "server" else folder / "new.db")} == {State.SUCCEEDED}
    assert tasks_in(folder / "afterwards.db") == []


@pytest.mark.xdist_group("postgres")
class TestServers:
    def test_there_and_back(self, folder: Path, postgres: PostgresServer, postgres_url: str) -> None:
        store(folder, 700, chains=2)
        before = tasks_in(folder / "afterwards.db")
        there = move(folder, SOURCE, postgres_url, "--yes")
        assert (there.returncode, there.stderr) == (ExitCode.DONE, "")
        assert tasks_in(postgres_url) == before
        back = move(folder, postgres_url, "sqlite:///back.db", "--yes")
        assert (back.returncode, back.stderr) == (ExitCode.DONE, "")
        assert tasks_in(folder / "back.db") == before
        assert tasks_in(postgres_url) == []
        assert PASSWORD not in there.stdout + back.stdout

    def test_the_same_store_by_two_urls_is_refused(self, folder: Path, postgres_url: str) -> None:
        store(folder, 1)
        assert move(folder, SOURCE, postgres_url, "--yes").returncode == ExitCode.DONE
        other = (
            postgres_url.replace("127.0.0.1", "localhost") + ("&" if "?" in postgres_url else "?") + "connect_timeout=5"
        )
        refused = move(folder, postgres_url, other, "--yes")
        assert refused.returncode == ExitCode.USAGE, refused.stderr
        assert "the same store" in refused.stderr
        assert len(tasks_in(postgres_url)) == 1

    def test_a_server_that_cannot_be_reached_is_named_without_its_password(
        self, folder: Path, postgres_url: str
    ) -> None:
        store(folder, 1)
        refused = move(folder, SOURCE, postgres_url.replace(PASSWORD, "wr0ng"), "--yes")
        assert refused.returncode == ExitCode.UNREACHABLE
        assert "wr0ng" not in refused.stderr and "Traceback" not in refused.stderr
        assert len(tasks_in(folder / "afterwards.db")) == 1

    def test_a_server_is_no_file_to_copy(self, folder: Path, postgres_url: str) -> None:
        refused = subprocess.run(
            [sys.executable, "-m", "afterwards", "backup", "copy.db", "--url", postgres_url],
            cwd=folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert refused.returncode == ExitCode.USAGE
        assert "pg_dump" in refused.stderr
        assert not (folder / "copy.db").exists()
