"""What holds for every command: JSON on stdout, words on stderr, exit codes, and no secret, password or traceback."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from afterwards.cli.commands import COMMANDS
from cli.commands import CANARY, Terminal, afterwards, answered
from face.processes import ENVIRONMENT

pytestmark = pytest.mark.afterwards(real=True)

PASSWORD = "pa55word-of-the-url"
URL = f"postgresql://me:{PASSWORD}@127.0.0.1:1/shop"

READING: dict[str, list[str]] = {
    "list": [],
    "show": ["ID"],
    "requeue": ["--state", "failed", "--yes"],
    "cancel": ["--state", "queued", "--yes"],
    "delete": ["--state", "failed", "--yes"],
    "enqueue": ["note", "--args", '["a"]'],
    "tail": ["ID"],
    "stats": [],
    "queues": [],
    "workers": ["--all"],
    "schedules": [],
    "pause": ["mail"],
    "resume": ["mail"],
    "doctor": [],
    "check": [],
    "prune": [],
}
"""The commands that print data, with arguments that need no terminal. ID stands for a failed task's id."""

OTHERS = {"worker", "backup", "migrate", "move", "dashboard"}


def with_id(folder: Path, arguments: list[str]) -> list[str]:
    if "ID" not in arguments:
        return arguments
    failed = answered(folder, "list", "--state", "failed", "--limit", "1")[0]["id"]
    return [failed if argument == "ID" else argument for argument in arguments]


def test_every_command_is_tested_here() -> None:
    assert READING.keys() | OTHERS >= COMMANDS.keys() >= READING.keys()


def test_the_versions_are_one_line(tmp_path: Path) -> None:
    done = afterwards(tmp_path, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"afterwards \d\S*, FastAPI \d\S*, Python \d\S*\n", done.stdout)


@pytest.mark.parametrize("command", READING)
def test_json_is_the_only_thing_on_stdout_and_holds_no_secret(shop: Path, command: str) -> None:
    done = afterwards(shop, command, *with_id(shop, READING[command]), "--json")
    json.loads(done.stdout)
    assert done.returncode == (1 if command in ("tail", "doctor") else 0), done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert "the application was imported" in done.stderr


@pytest.mark.parametrize("command", READING)
def test_words_hold_no_secret(shop: Path, command: str) -> None:
    done = afterwards(shop, command, *with_id(shop, READING[command]))
    assert CANARY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if command not in ("show", "tail", "doctor"))


@pytest.mark.parametrize("command", READING)
def test_a_store_that_is_away_has_an_exit_code_and_hides_its_password(shop: Path, command: str) -> None:
    failed = "0190aaaa-0000-7000-8000-000000000000"
    arguments = [failed if argument == "ID" else argument for argument in READING[command]]
    for given, environment in ((["--url", URL], {}), ([], {"AFTERWARDS_URL": URL})):
        done = afterwards(shop, command, *arguments, *given, environment=environment)
        assert (done.returncode, done.stdout) == (3, ""), done.stderr
        assert "127.0.0.1" in done.stderr
        assert PASSWORD not in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lst"], "No such command 'lst'. Did you mean 'list'?"),
        (["list", URL], "unexpected extra argument"),
        (["list", "--stat", "failed"], "--stat"),
        (["list", "--limit", "0"], "--limit"),
        (["list", "--url", "tasks.db"], "give sqlite:///tasks.db"),
        (["list", "--url", "memory://"], "keeps tasks in the memory of one process"),
        (["list", "--url", f"mysql://me:{PASSWORD}@host/db"], 'there is no engine for "mysql"'),
        (["list", "--app", "nothing:app"], "there is no module 'nothing'"),
        (["show"], "Missing argument 'ID'"),
    ],
)
def test_a_usage_error_is_one_line(shop: Path, arguments: list[str], said: str) -> None:
    done = afterwards(shop, *arguments)
    lines = [line for line in done.stderr.splitlines() if line != "the application was imported"]
    assert (done.returncode, done.stdout, len(lines)) == (2, "", 1), done.stderr
    assert said in lines[0]
    assert PASSWORD not in lines[0]


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_fits_80_columns(shop: Path, option: str) -> None:
    done = afterwards(shop, option)
    assert done.returncode == 0
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert {line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line} == {*COMMANDS}
    one = afterwards(shop, "list", option)
    assert "Exit codes: 0 done, 1 failed, 2 usage error, 3 the store is not reachable." in one.stdout
    without = afterwards(shop)
    assert (without.returncode, without.stdout) == (2, "")
    assert "Commands:" in without.stderr


def test_the_store_is_the_url_else_the_environment_else_the_application(shop: Path, tmp_path: Path) -> None:
    here = f"sqlite:///{shop}/afterwards.db"
    (tmp_path / "empty").mkdir()
    empty = tmp_path / "empty"
    assert len(answered(empty, "list", "--url", here)) == 7
    done = afterwards(empty, "list", "--json", environment={"AFTERWARDS_URL": here})
    assert len(json.loads(done.stdout)) == 7
    assert "imported" not in done.stderr
    missing = afterwards(empty, "list")
    assert missing.returncode == 2
    assert "no store is named: give --url, or set AFTERWARDS_URL, or give --app" in missing.stderr
    done = afterwards(shop, "list", "--url", f"sqlite:///{empty}/none.db", environment={"AFTERWARDS_URL": here})
    assert done.returncode == 3
    code = (shop / "main.py").read_text()
    (shop / "other.py").write_text(code.replace("Afterwards(app)", f"Afterwards(app, 'sqlite:///{empty}/other.db')"))
    answered(shop, "enqueue", "note", "--args", '["x"]', "--app", "other:app")
    assert len(answered(shop, "list", "--app", "other:app")) == 1
    (empty / "main.py").write_text("")
    done = afterwards(empty, "list")
    assert done.returncode == 2
    assert "has no FastAPI application" in done.stderr


def test_a_reader_that_has_enough_ends_the_command_in_silence(shop: Path) -> None:
    for command in ("list", "list --json", "stats --watch --json --every 0.2", "show ID", "queues"):
        filled = " ".join(with_id(shop, command.split()))
        script = f"{sys.executable} -m afterwards {filled} 2>words | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=shop, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
        )
        assert (done.stdout.strip(), done.stderr) == ("0", "")
        assert not {"Traceback", "Broken", "Exception"} & set((shop / "words").read_text().split())


def test_ctrl_c_shows_no_traceback(shop: Path) -> None:
    with Terminal(shop, "tail") as terminal:
        terminal.shows("until Ctrl-C")
        terminal.types("\x03")
        assert terminal.ends() == 0
    assert "Traceback" not in terminal.shown


def test_many_tasks_are_listed_in_bounded_time_and_memory(shop: Path) -> None:
    program = """
import asyncio
from datetime import timedelta
from afterwards.core.task import NewTask, task_id
from afterwards.engines.sqlite import SQLiteEngine
from pathlib import Path
from datetime import datetime, UTC
import os

async def fill():
    async with SQLiteEngine(Path("many.db")) as engine:
        for start in range(0, 20_000, 5000):
            await engine.enqueue([
                NewTask(id=task_id(datetime.now(UTC), os.urandom(10)), name="many", arguments='{"n": %d}' % number)
                for number in range(start, start + 5000)
            ])

asyncio.run(fill())
"""
    subprocess.run([sys.executable, "-c", program], cwd=shop, env=ENVIRONMENT, check=True, timeout=120)
    url = f"sqlite:///{shop}/many.db"
    began = time.monotonic()
    assert len(answered(shop, "list", "--url", url)) == 100
    assert afterwards(shop, "list", "--url", url, "--text", "nowhere").returncode == 0
    assert time.monotonic() - began < 30
    measured = (
        "import resource, sys; from afterwards.cli.main import run; code = run(); sys.stdout.flush(); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    sizes = []
    for limit in ("1000", "20000"):
        command = [sys.executable, "-c", measured, "list", "--url", url, "--limit", limit, "--json"]
        done = subprocess.run(command, cwd=shop, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
        assert len(json.loads(done.stdout)) == int(limit)
        sizes.append(int(done.stderr.split()[-1]))
    assert sizes[1] - sizes[0] < 15_000, sizes  # kilobytes; all the records take more than twice that


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "main:app"),
        ("main:app",),
        ("requeue", "main:app", "--state", "failed", "--yes"),
        ("check", "main:app"),
        ("enqueue", "note", "main:app", "--args", '["a"]'),
        ("stats", "--json", "main.py:app"),
    ],
)
def test_the_application_may_be_an_argument(shop: Path, arguments: tuple[str, ...]) -> None:
    if len(arguments) == 1:
        failed = answered(shop, "list", "--state", "failed", "--limit", "1")[0]["id"]
        arguments = "requeue", failed, *arguments
    (shop / "main.py").rename(shop / "other.py")  # which no command finds by itself
    named = [argument.replace("main", "other") for argument in arguments]
    done = afterwards(shop, *named)
    assert done.returncode == 0, done.stderr
    assert "the application was imported" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "failed"),
        ("list", "main:app", "main:app"),
        ("list", "main:app", "--app", "main:app"),
        ("worker", "a:b", "c:d"),
    ],
)
def test_what_no_command_takes_is_refused(shop: Path, arguments: tuple[str, ...]) -> None:
    done = afterwards(shop, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "unexpected extra argument" in done.stderr


def test_an_id_that_is_needed_is_not_taken_for_the_application(shop: Path) -> None:
    done = afterwards(shop, "show", "main:app")
    assert done.returncode == 1
    assert "no task has the id main:app" in done.stderr


def test_a_store_that_cannot_be_reached_is_named_once(shop: Path) -> None:
    done = afterwards(shop, "list", "--url", URL)
    assert done.returncode == 3
    assert done.stderr.count("127.0.0.1:1/shop") == 1, done.stderr
