"""``afterwards requeue``, ``cancel`` and ``delete``: the operator's night."""

from collections import Counter
from pathlib import Path

import pytest

from cli.commands import Terminal, afterwards, answered, program

pytestmark = pytest.mark.afterwards(real=True)


def counts(folder: Path) -> Counter[str]:
    return Counter(task["state"] for task in answered(folder, "list"))


def ids(folder: Path, *arguments: str) -> list[str]:
    return [task["id"] for task in answered(folder, "list", *arguments)]


def test_the_night_of_an_operator(shop: Path) -> None:
    done = program(shop, "list", "--state", "failed")
    assert done.stdout.count("ValueError: no such address") == 3
    with Terminal(shop, "requeue", "--state", "failed", "--since", "1h") as terminal:
        terminal.shows("Requeue 3 tasks? [y/N]")
        terminal.types("y\n")
        assert terminal.ends() == 0, terminal.shown
    assert "3 tasks requeued" in terminal.shown
    assert counts(shop) == {"queued": 4, "scheduled": 1, "succeeded": 2}


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04"])
def test_without_a_yes_nothing_is_changed(shop: Path, answer: str) -> None:
    with Terminal(shop, "delete", "--state", "failed") as terminal:
        terminal.shows("Delete 3 tasks? [y/N]")
        terminal.types(answer)
        assert terminal.ends() == 1
    assert "nothing was deleted" in terminal.shown
    assert counts(shop)["failed"] == 3


def test_ctrl_c_at_the_question_changes_nothing(shop: Path) -> None:
    with Terminal(shop, "cancel", "--name", "note") as terminal:
        terminal.shows("Cancel 2 tasks? [y/N]")
        terminal.types("\x03")
        assert terminal.ends() == 130
    assert "Traceback" not in terminal.shown
    assert counts(shop)["cancelled"] == 0


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("requeue", "--state", "failed", "--since", "1h"), {"requeued": 3}),
        (("requeue", "--since", "1h"), {"requeued": 3}),
        (("requeue", "--name", "note"), {"requeued": 0}),
        (("requeue", "--name", "note", "--state", "succeeded"), {"requeued": 2}),
        (("cancel", "--queue", "default"), {"cancelled": 2}),
        (("cancel", "--state", "scheduled", "--reason", "not today"), {"cancelled": 1}),
        (("delete", "--queue", "mail"), {"deleted": 3}),
        (("delete", "--since", "1h"), {"deleted": 5}),
    ],
)
def test_a_filter_acts_on_all_that_match(shop: Path, arguments: tuple[str, ...], answer: dict[str, int]) -> None:
    assert answered(shop, *arguments, "--yes") == answer


def test_ids_act_without_a_question(shop: Path) -> None:
    failed = ids(shop, "--state", "failed")
    assert answered(shop, "requeue", *failed[:2]) == {"requeued": 2}
    assert answered(shop, "cancel", failed[0][:30]) == {"cancelled": 1}
    assert answered(shop, "delete", failed[0]) == {"deleted": 1}
    assert counts(shop) == {"queued": 2, "scheduled": 1, "succeeded": 2, "failed": 1}


def test_an_unknown_id_is_an_error_and_nothing_is_changed(shop: Path) -> None:
    known, unknown = ids(shop, "--state", "failed")[0], "0190aaaa-0000-7000-8000-000000000000"
    done = afterwards(shop, "requeue", known, unknown)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"no task has the id {unknown}" in done.stderr
    assert counts(shop)["failed"] == 3


def test_an_id_that_cannot_be_changed_is_said(shop: Path) -> None:
    [queued], failed = ids(shop, "--state", "queued"), ids(shop, "--state", "failed")[0]
    done = afterwards(shop, "requeue", queued, failed)
    assert (done.returncode, done.stdout) == (1, "1 task requeued\n")
    assert f"{queued} (note) is queued, so it was not requeued" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("requeue",), "nothing is named: give ids of tasks, or a filter"),
        (("delete", "--yes"), "nothing is named"),
        (("requeue", "--state", "failed"), "nobody can be asked here whether to requeue all that match: give --yes"),
        (("requeue", "--state", "broken", "--yes"), "'broken' is no state"),
        (("requeue", "--state", "faild", "--yes"), "did you mean failed?"),
        (("requeue", "--state", "running", "--yes"), "no task that is running can be requeued"),
        (("cancel", "--state", "", "--yes"), "has an empty value"),
        (("cancel", "--name", "a,,b", "--yes"), "has an empty value"),
        (("cancel", "--text", " ", "--yes"), "--text is empty"),
        (("requeue", "--since", "yesterday", "--yes"), "give a span until now, as 90s, 30m"),
        (("requeue", "--since", "99999999999d", "--yes"), "give a span until now"),
        (("requeue", "0190aaaa-0000-7000-8000-000000000000", "--name", "a"), "ids and a filter are both given"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(shop: Path, arguments: tuple[str, ...], said: str) -> None:
    done = afterwards(shop, *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr
    assert counts(shop) == {"queued": 1, "scheduled": 1, "failed": 3, "succeeded": 2}


def test_nothing_matched_is_done(shop: Path) -> None:
    done = afterwards(shop, "requeue", "--name", "nobody", "--yes")
    assert (done.returncode, done.stdout) == (0, "0 tasks requeued\n")
    assert "no task matches" in done.stderr
