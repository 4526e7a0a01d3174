"""``afterwards move --put-back``: the batch that was on its way to a store that is gone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from afterwards.cli.errors import ExitCode
from face.processes import ENVIRONMENT, TIMEOUT, output, write_application
from move.test_move_command import SOURCE, answer_to, move, store, tasks_in

PACK = """
import asyncio, sys
from afterwards import engines

async def pack(url: str, to: str) -> None:
    done = None
    async with engines.shared(url) as engine:
        while not (done := await engine.hand_over(to, limit=5, done=done)).tasks: ...

asyncio.run(pack(sys.argv[1], sys.argv[2]))
"""


TAKE_OVER = """
import asyncio
from afterwards import engines

async def take_over() -> None:
    async with engines.shared("{source}") as one, engines.shared("sqlite:///gone.db") as other:
        await other.take_over(await one.hand_over("", limit=5))

asyncio.run(take_over())
"""


def pack(folder: Path, url: str, to: str = "sqlite:///gone.db") -> None:
    """Begin a move, and end it when the first five tasks are on their way."""
    (folder / "pack.py").write_text(PACK)
    subprocess.run([sys.executable, "pack.py", url, to], cwd=folder, env=ENVIRONMENT, timeout=TIMEOUT, check=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_application(tmp_path, "from afterwards import chain\ntasks = Afterwards(app)")
    return tmp_path


@pytest.fixture(params=["file", pytest.param("server", marks=pytest.mark.xdist_group("postgres"))])
def source(request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a store with twelve tasks, of which five are on their way."""
    store(folder, 7, chains=1)
    url = SOURCE
    if request.param == "server":
        url = request.getfixturevalue("postgres_url")
        assert move(folder, SOURCE, url, "--yes").returncode == ExitCode.DONE
    pack(folder, url)
    return url


def place(folder: Path, url: str) -> Path | str:
    return folder / "afterwards.db" if url == SOURCE else url


def test_its_tasks_come_back_once_and_run(folder: Path, source: str) -> None:
    assert len(tasks_in(place(folder, source))) == 7
    refused = move(folder, source, "sqlite:///new.db", "--yes")
    assert refused.returncode == ExitCode.USAGE
    assert "move --put-back SOURCE" in " ".join(refused.stderr.split())
    put = move(folder, "--put-back", source, "--yes")
    assert (put.returncode, put.stdout) == (
        ExitCode.DONE,
        "put 5 tasks back that were on their way to sqlite:///gone.db\n",
    )
    assert len(tasks_in(place(folder, source))) == 12
    again = move(folder, "--put-back", source, "--yes")
    assert (again.returncode, again.stdout[:26]) == (ExitCode.DONE, "nothing was on its way fro")
    assert len(tasks_in(place(folder, source))) == 12
    worker = [sys.executable, "-m", "afterwards", "worker", "--burst"]
    subprocess.run(worker, cwd=folder, env=ENVIRONMENT | {"AFTERWARDS_URL": source}, timeout=TIMEOUT, check=True)
    lines = (folder / "diary.txt").read_text().splitlines()
    assert sorted(lines) == sorted([*map(str, range(7)), *(f"0-{step}" for step in range(5))])


def test_tasks_that_the_destination_has_after_all_are_not_doubled_there(folder: Path, source: str) -> None:
    output(TAKE_OVER.format(source=source), folder)
    assert len(tasks_in(folder / "gone.db")) == 5
    put = json.loads(move(folder, "--put-back", source, "--yes", "--json").stdout)
    assert put == {"to": "sqlite:///gone.db", "tasks": 5, "known": [], "without_keys": []}
    moved = json.loads(move(folder, source, "sqlite:///gone.db", "--yes", "--json").stdout)
    assert (moved["tasks"], len(moved["known"]), moved["left"]) == (12, 5, 0)
    assert len(tasks_in(folder / "gone.db")) == 12


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", 7), (b"y\n", 12)])
def test_people_are_told_what_nobody_knows(folder: Path, answer: bytes, left: int) -> None:
    store(folder, 12)
    pack(folder, SOURCE)
    _, error = answer_to(folder, answer, "--put-back", SOURCE)
    assert "Nobody knows here whether the other store has it, too" in " ".join(error.split())
    assert len(tasks_in(folder / "afterwards.db")) == left


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--put-back", SOURCE, "sqlite:///new.db", "--yes"), ExitCode.USAGE, "leave out DESTINATION"),
        (("--put-back", SOURCE), ExitCode.USAGE, "give --yes"),
        (("--put-back", "sqlite:///missing.db", "--yes"), ExitCode.UNREACHABLE, "there is no file"),
        (("--put-back", "memory://", "--yes"), ExitCode.USAGE, "in the memory of one process"),
    ],
)
def test_bad_input_gets_a_clear_line(folder: Path, arguments: tuple[str, ...], code: ExitCode, said: str) -> None:
    store(folder, 1)
    refused = move(folder, *arguments)
    assert refused.returncode == code, refused.stderr
    assert said in refused.stderr and "Traceback" not in refused.stderr
