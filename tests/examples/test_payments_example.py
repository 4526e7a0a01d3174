"""The example of an application's tests, run as a user runs it: they pass, and they can fail."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

TESTS = frozenset(re.findall(r"def (test_\w+)", (EXAMPLES / "test_payments.py").read_text()))


MISTAKES = {
    (
        "order_number INTEGER PRIMARY KEY",
        "order_number INTEGER",
    ): "test_an_order_is_paid_once_though_its_task_runs_twice",
    ("delay=timedelta(days=3)", "delay=timedelta(days=4)"): "test_customers_are_reminded_after_three_days",
    ("@task(rerun_after_crash=False)", "@task"): "test_nobody_is_reminded_twice",
    ("@task(every=timedelta(days=1))", "@task"): "test_the_report_is_made_every_day",
}
"""A mistake in the application, and the test that catches it."""


def failed(folder: Path, *mistakes: tuple[str, str]) -> set[str]:
    """The tests of the example that fail, once mistakes were made in the application."""
    shutil.copy(EXAMPLES / "test_payments.py", folder)
    application = (EXAMPLES / "payments.py").read_text()
    for right, wrong in mistakes:
        assert right in application
        application = application.replace(right, wrong)
    (folder / "payments.py").write_text(application)
    command = [sys.executable, "-m", "pytest", "-v", "--color=no", "test_payments.py"]
    shown = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60).stdout
    ended = dict(re.findall(r"^test_payments\.py::(\w+) (PASSED|FAILED)", shown, re.MULTILINE))
    assert ended.keys() == TESTS, shown
    return {name for name, how in ended.items() if how == "FAILED"}


def test_they_pass_and_leave_nothing_behind(tmp_path: Path) -> None:
    assert failed(tmp_path) == set()
    assert not {"afterwards.db", "payments.db", "mails.txt"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("mistakes", [list(MISTAKES)[:2], list(MISTAKES)[2:]])  # of functions that are not the same
def test_they_catch_what_they_are_for(tmp_path: Path, mistakes: list[tuple[str, str]]) -> None:
    assert failed(tmp_path, *mistakes) == {MISTAKES[mistake] for mistake in mistakes}
