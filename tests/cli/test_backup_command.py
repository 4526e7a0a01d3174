"""``afterwards backup``, run as operators run it."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from afterwards.cli.errors import ExitCode
from face.processes import ENVIRONMENT, output, uvicorn, write_application


def backup(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "afterwards", "backup", *arguments],
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def tasks_in(file: Path) -> int:
    with closing(sqlite3.connect(file)) as opened:
        [count] = opened.execute("SELECT count(*) FROM afterwards_tasks").fetchone()
        return int(count)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an application that has stored three tasks."""
    write_application(tmp_path, "Afterwards(app)")
    output("import asyncio, main\nfor text in 'abc':\n    main.note.enqueue_sync(text)", tmp_path)
    return tmp_path


def test_it_copies_everything_to_a_file_of_its_own(folder: Path) -> None:
    done = backup(folder, "copy.db")
    assert (done.returncode, done.stderr) == (ExitCode.DONE, "")
    assert str(folder / "afterwards.db") in done.stdout and "copy.db" in done.stdout
    assert tasks_in(folder / "copy.db") == 3
    assert not (folder / "copy.db-wal").exists()
    assert not os.stat(folder / "copy.db").st_mode & 0o077


def test_it_tells_programs_what_it_copied(folder: Path) -> None:
    told = json.loads(backup(folder, "copy.db", "--json").stdout)
    assert told == {
        "store": f"sqlite:///{folder}/afterwards.db",
        "path": "copy.db",
        "bytes": (folder / "copy.db").stat().st_size,
    }


def test_it_copies_beside_a_server(folder: Path) -> None:
    with uvicorn(folder) as server:
        server.post("/note/d")
        server.writes("d")
        assert backup(folder, "copy.db").returncode == ExitCode.DONE
        server.post("/note/e")
        server.writes("e")
        server.stops()
    assert tasks_in(folder / "copy.db") == 4


@pytest.mark.parametrize("how", ["option", "environment"])
def test_the_store_is_named_by_its_url(folder: Path, how: str) -> None:
    (folder / "elsewhere").mkdir()
    url = f"sqlite:///{folder / 'afterwards.db'}"
    if how == "option":
        done = backup(folder / "elsewhere", "copy.db", "--url", url)
    else:
        done = backup(folder / "elsewhere", "copy.db", AFTERWARDS_URL=url)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert tasks_in(folder / "elsewhere" / "copy.db") == 3


def test_it_overwrites_nothing(folder: Path) -> None:
    (folder / "copy.db").write_text("precious")
    done = backup(folder, "copy.db")
    assert done.returncode == ExitCode.USAGE
    assert "copy.db exists already" in done.stderr
    assert (folder / "copy.db").read_text() == "precious"
    assert backup(folder, "afterwards.db").returncode == ExitCode.USAGE
    assert tasks_in(folder / "afterwards.db") == 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("missing/copy.db",), ExitCode.USAGE, "there is no folder"),
        ((".",), ExitCode.USAGE, "is a folder: add the name of the file"),
        (("copy.db", "--url", "sqlite:///other.db"), ExitCode.UNREACHABLE, "there is no file"),
        (("copy.db", "--url", "memory://"), ExitCode.USAGE, "in the memory of one process"),
        (("copy.db", "--url", "mysql://root:secret@localhost"), ExitCode.USAGE, 'there is no engine for "mysql"'),
        (("copy.db", "--url", "other.db"), ExitCode.USAGE, "is not a URL"),
        (("copy.db", "--url", "sqlite:///main.py"), ExitCode.UNREACHABLE, "cannot be opened"),
        ((), ExitCode.USAGE, "PATH"),
    ],
)
def test_bad_input_gets_one_clear_line_and_makes_no_file(
    folder: Path, arguments: tuple[str, ...], code: ExitCode, said: str
) -> None:
    before = {*os.listdir(folder)}
    done = backup(folder, *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr and "secret" not in done.stderr
    assert {*os.listdir(folder)} <= before | {"__pycache__"}
