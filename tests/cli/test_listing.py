"""``afterwards list`` and ``show``."""

import json
import re
from pathlib import Path

import pytest

from cli.commands import CANARY, Terminal, afterwards, answered

pytestmark = pytest.mark.afterwards(real=True)


def states(folder: Path, *arguments: str) -> list[str]:
    return [task["state"] for task in answered(folder, "list", *arguments)]


def test_a_list_is_one_array_of_records_newest_first(shop: Path) -> None:
    tasks = answered(shop, "list")
    assert [task["state"] for task in tasks] == ["scheduled", "queued", *["failed"] * 3, *["succeeded"] * 2]
    assert {"id", "name", "state", "queue", "attempt", "created_at", "failures"} <= tasks[0].keys()
    assert tasks[2]["queue"] == "mail"
    assert tasks[2]["attempt"] == 1
    assert tasks[2]["created_at"].endswith("Z")


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (("--state", "failed"), 3),
        (("--state", "failed,succeeded"), 5),
        (("-s", "failed", "-s", "QUEUED"), 4),
        (("--name", "send"), 3),
        (("--queue", "default"), 4),
        (("--queue", "default", "--state", "succeeded"), 2),
        (("--text", "send"), 3),
        (("--since", "1h"), 7),
        (("--since", "2001-01-01T00:00"), 7),
        (("--since", "0s"), 0),
        (("--limit", "2"), 2),
        (("--name", "nobody"), 0),
    ],
)
def test_filters_narrow_a_list(shop: Path, arguments: tuple[str, ...], number: int) -> None:
    assert len(answered(shop, "list", *arguments)) == number


def test_a_list_goes_on_below_its_last_task(shop: Path) -> None:
    everything = [task["id"] for task in answered(shop, "list")]
    first = afterwards(shop, "list", "--limit", "3", "--json")
    assert f"--before {everything[2]}" in first.stderr
    assert [task["id"] for task in answered(shop, "list", "--before", everything[2])] == everything[3:]


def test_a_table_fits_80_columns_and_says_what_went_wrong(shop: Path) -> None:
    done = afterwards(shop, "list")
    assert all(len(line) <= 80 for line in done.stdout.splitlines()), done.stdout
    assert "ValueError: no such address: ada@example.org with [hidden]" in done.stdout
    assert "\x1b" not in done.stdout
    assert len(re.findall(r"( ago| now)$", done.stdout, re.MULTILINE)) == 6
    assert re.search(r" in [1-5]?\d min", done.stdout)  # one waits for an hour; the folder was prepared a while ago


def test_a_wide_terminal_shows_queues_and_colors(shop: Path) -> None:
    with Terminal(shop, "list", columns=120) as terminal:
        assert terminal.ends() == 0, terminal.shown
    assert "mail" in terminal.shown
    assert "\x1b[31mfailed" in terminal.shown
    with Terminal(shop, "list", NO_COLOR="1") as terminal:
        assert terminal.ends() == 0, terminal.shown
    assert "failed" in terminal.shown
    assert "\x1b" not in terminal.shown


def test_nothing_found_is_said_with_the_next_step(shop: Path) -> None:
    done = afterwards(shop, "list", "--name", "nobody")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no task matches. `afterwards queues` shows" in done.stderr
    assert answered(shop, "list", "--name", "nobody") == []


def test_a_task_is_shown_with_its_traceback(shop: Path) -> None:
    failed = answered(shop, "list", "--state", "failed", "--limit", "1")[0]
    one = answered(shop, "show", failed["id"])
    assert one["id"] == failed["id"]
    assert one["arguments"] == {"to": "eve@example.org", "password": "[hidden]"}
    assert "Traceback" in one["failures"][0]["traceback"]
    done = afterwards(shop, "show", failed["id"])
    for said in ("send failed", "to = ", 'password = "[hidden]"', "raise ValueError(", "attempt 1 raised"):
        assert said in done.stdout
    assert f"afterwards requeue {failed['id']}" in done.stderr


def test_the_beginning_of_an_id_stands_for_it(shop: Path) -> None:
    tasks = answered(shop, "list")
    ids = [task["id"] for task in tasks]
    assert answered(shop, "show", ids[0][:24])["id"] == ids[0]
    assert answered(shop, "show", ids[0].upper())["id"] == ids[0]
    for start, code, said in ((ids[0][:8], 2, "begins"), (ids[0][:7], 2, "at least 8"), ("f" * 12, 1, "no task has")):
        done = afterwards(shop, "show", start)
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr


def test_control_codes_of_stored_texts_do_not_reach_a_terminal(shop: Path) -> None:
    evil = "\x1b]0;title\x07\x1b[2J\u202e"
    answered(shop, "enqueue", "note", "--args", json.dumps({"text": evil}))
    [id] = [task["id"] for task in answered(shop, "list", "--limit", "1")]
    with Terminal(shop, "show", id, NO_COLOR="1") as terminal:
        assert terminal.ends() == 0, terminal.shown
    assert "title" in terminal.shown
    assert not {"\x1b", "\x07", "\u202e"} & set(terminal.shown)


def test_a_secret_is_no_filter(shop: Path) -> None:
    assert answered(shop, "list", "--text", CANARY) == []
