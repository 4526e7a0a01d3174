"""The commands that look at queues, workers and schedules, pause them, store tasks and follow them."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.commands import Terminal, afterwards, answered, program
from face.processes import ENVIRONMENT, Program, eventually

pytestmark = pytest.mark.afterwards(real=True)


@pytest.fixture
def working(shop: Path) -> Iterator[Program]:
    """A worker of the shop, which also finishes what waits."""
    with Program([sys.executable, "-m", "afterwards", "worker"], shop) as program:
        program.says("worker here")
        yield program


def test_queues_are_counted(shop: Path) -> None:
    queues = {queue["queue"]: queue for queue in answered(shop, "queues")}
    assert queues["mail"]["failed"] == 3
    assert queues["default"]["succeeded"] == 2
    assert queues["default"]["paused"] is False
    table = afterwards(shop, "queues").stdout
    assert all(len(line) <= 80 for line in table.splitlines()), table
    assert re.search(r"mail +0 +0 +0 +0 +0 +3 +0", table)


def test_a_queue_a_task_function_and_a_schedule_are_paused_and_resumed(shop: Path) -> None:
    assert answered(shop, "pause", "mail") == {"paused": {"queues": ["mail"], "names": [], "schedules": []}}
    assert answered(shop, "pause", "--name", "note", "--schedule", "tidy", "--queue", "slow") == {
        "paused": {"queues": ["mail", "slow"], "names": ["note"], "schedules": ["tidy"]}
    }
    assert "paused" in afterwards(shop, "queues").stdout
    assert [one["paused"] for one in answered(shop, "schedules")] == [True]
    done = afterwards(shop, "resume", "mail", "slow", "-n", "note", "--schedule", "tidy")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing is paused" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("pause",), 2, "nothing is named: give a queue, or --name"),
        (("pause", "a b"), 2, "queue 'a b'"),
        (("pause", "--schedule", "note"), 1, "no task function named note has a schedule here: there are tidy"),
    ],
)
def test_what_cannot_be_paused_is_said(shop: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = afterwards(shop, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_schedules_have_a_last_and_a_next_fire(shop: Path) -> None:
    [tidy] = answered(shop, "schedules")
    assert (tidy["name"], tidy["expression"]) == ("tidy", "every 1:00:00")
    assert tidy["next_fire"]
    by_url = answered(shop, "schedules", "--url", f"sqlite:///{shop}/afterwards.db")
    assert by_url == [tidy]
    assert re.search(r"tidy +every 1:00:00 +never +in \d+ min", afterwards(shop, "schedules").stdout)


def test_workers_say_what_they_run(shop: Path, working: Program) -> None:
    answered(shop, "enqueue", "wait_until_told", "--args", '["x"]')
    worker = eventually(lambda: next((one for one in answered(shop, "workers") if one["tasks"]), None))
    assert worker["pid"] == str(working.process.pid)
    assert "note" in worker["names"]
    assert worker["tasks"][0]["name"] == "wait_until_told"
    assert f"{working.process.pid}" in afterwards(shop, "workers").stdout
    (shop / "go").touch()
    working.stops()
    done = afterwards(shop, "workers")
    assert (done.stdout, done.returncode) == ("", 0)
    assert "no worker is alive" in done.stderr
    assert [one["has_left"] for one in answered(shop, "workers", "--all")][-1] is True


def test_stats_count_what_waits_and_what_ended(shop: Path) -> None:
    numbers = answered(shop, "stats")
    assert numbers["states"]["failed"] == 3
    assert numbers["queues"]["mail"] == {"failed": 3}
    assert numbers["ended"]["hour"] == {"succeeded": 2, "failed": 3, "retried": 0}
    assert numbers["workers"] == 0
    assert numbers["oldest"] >= 0
    assert re.search(r"last hour +2 +3 +0", afterwards(shop, "stats").stdout)


def test_stats_are_watched_until_ctrl_c(shop: Path) -> None:
    with Terminal(shop, "stats", "--watch", "--every", "0.2") as terminal:
        terminal.shows("longest wait")
        answered(shop, "requeue", "--state", "failed", "--yes")
        terminal.shows("queued             4")
        terminal.types("\x03")
        assert terminal.ends() == 0, terminal.shown
    assert "Traceback" not in terminal.shown


def test_watched_numbers_are_lines_of_json(shop: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "afterwards", "stats", "--watch", "--json", "--every", "0.2"],
        cwd=shop,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background processes ignore it
    ) as watching:
        assert watching.stdout
        for _ in range(3):
            assert json.loads(watching.stdout.readline())["states"]["failed"] == 3
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0


def test_a_call_is_stored_with_checked_arguments(shop: Path) -> None:
    stored = answered(
        shop, "enqueue", "note", "--args", '{"text": "x", "count": 2}', "--delay", "1h", "--queue", "mail"
    )
    assert (stored["state"], stored["queue"], stored["origin"]) == ("scheduled", "mail", "afterwards enqueue")
    assert answered(shop, "show", stored["id"])["arguments"] == {"text": "x", "count": 2}
    done = afterwards(shop, "enqueue", "note", "-a", '["y"]')
    [id] = done.stdout.split()
    assert f"`afterwards show {id}` follows it" in done.stderr
    assert program(shop, "worker", "--burst").returncode == 0
    assert answered(shop, "show", id)["result"] == "y"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nte",), "no task function is named 'nte'; did you mean note? There are note, send, tidy"),
        (("note",), 'parameter "text" is missing; it takes text, count'),
        (("note", "--args", "text"), "--args is not JSON"),
        (("note", "--args", "7"), "--args is int: give an object"),
        (("note", "--args", '["a", 1, 2]'), "--args has 3 values, and note takes text, count"),
        (("note", "--args", '{"text": "a", "times": 2}'), 'there is no parameter "times"'),
        (("note", "--args", '{"text": "a", "count": "many"}'), 'parameter "count": Input should be a valid integer'),
        (("note", "--args", '["a"]', "--delay", "soon"), "--delay 'soon': give a span"),
        (("note", "--args", '["a"]', "--queue", "a b"), "a b"),
        (("note", "--args", '["a"]', "--priority", "1000"), "priority"),
        (("send", "--args", '{"to": "x", "password": ["canary"]}'), 'parameter "password": Input should be a valid'),
    ],
)
def test_a_wrong_call_is_refused(shop: Path, arguments: tuple[str, ...], said: str) -> None:
    done = afterwards(shop, "enqueue", *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr
    assert "canary" not in done.stderr
    assert len(answered(shop, "list")) == 7


def test_the_first_call_makes_the_store(shop: Path) -> None:
    (shop / "afterwards.db").unlink()
    done = afterwards(shop, "list")
    assert (done.returncode, done.stdout) == (3, "")
    assert "The application makes it when it starts" in done.stderr
    assert answered(shop, "enqueue", "note", "--args", '["first"]')["state"] == "queued"
    assert len(answered(shop, "list")) == 1


def test_code_that_cannot_run_what_is_stored_is_told_before_a_deploy(shop: Path) -> None:
    assert answered(shop, "check") == []
    assert "this code can run every unfinished task" in afterwards(shop, "check").stderr
    code = (shop / "main.py").read_text()
    (shop / "main.py").write_text(code.replace("text: str, count", "subject: str, count").replace("text * count", "''"))
    problems = answered(shop, "check", code=1)
    assert {(one["name"], one["what"], one["count"]) for one in problems} == {("note", "arguments", 2)}
    assert 'note, arguments: parameter "' in afterwards(shop, "check").stdout


def test_prune_deletes_what_is_over(shop: Path) -> None:
    assert answered(shop, "prune") == {"pruned": 0}


def test_running_tasks_are_followed_with_bars(shop: Path, working: Program) -> None:
    with Terminal(shop, "tail", "--every", "0.1") as terminal:
        terminal.shows("until Ctrl-C")
        answered(shop, "enqueue", "wait_until_told", "--args", '["x"]')
        terminal.shows("waiting")
        assert "% (" in terminal.shown
        (shop / "go").touch()
        terminal.shows("succeeded")
        answered(shop, "requeue", "--name", "send", "--yes")
        terminal.shows("ValueError: no such address: eve@example.org with [hidden]")
        terminal.types("\x03")
        assert terminal.ends() == 0, terminal.shown
    assert "Traceback" not in terminal.shown


def test_one_task_is_followed_to_its_end(shop: Path, working: Program) -> None:
    id = answered(shop, "enqueue", "wait_until_told", "--args", '["x"]')["id"]
    with Program([sys.executable, "-m", "afterwards", "tail", id, "--json"], shop) as following:
        (shop / "go").touch()
        assert following.ends() == 0
        assert json.loads(following.output.splitlines()[-1])["state"] == "succeeded"
    failed = answered(shop, "list", "--state", "failed")[0]["id"]
    done = afterwards(shop, "tail", failed)
    assert done.returncode == 1
    assert f"{failed} send failed" in done.stdout
