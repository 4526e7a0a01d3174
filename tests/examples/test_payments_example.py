"""The example of an application's tests, run as a user runs it: they pass, and they can fail."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

TESTS = frozenset(re.findall(r"def (test_\w+)", (EXAMPLES / "test_payments.py").read_text()))


def failed(folder: Path, *, mistake: tuple[str, str] | None = None) -> set[str]:
    """The tests of the example that fail, once a mistake was made in the application."""
    shutil.copy(EXAMPLES / "test_payments.py", folder)
    application = (EXAMPLES / "payments.py").read_text()
    if mistake:
        assert mistake[0] in application
        application = application.replace(*mistake)
    (folder / "payments.py").write_text(application)
    command = [sys.executable, "-m", "pytest", "-v", "--color=no", "test_payments.py"]
    shown = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60).stdout
    ended = dict(re.findall(r"^test_payments\.py::(\w+) (PASSED|FAILED)", shown, re.MULTILINE))
    assert ended.keys() == TESTS, shown
    return {name for name, how in ended.items() if how == "FAILED"}


def test_they_pass_and_leave_nothing_behind(tmp_path: Path) -> None:
    assert failed(tmp_path) == set()
    assert not {"afterwards.db", "payments.db", "mails.txt"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("mistake", "caught_by"),
    [
        (
            ("order_number INTEGER PRIMARY KEY", "order_number INTEGER"),
            {"test_an_order_is_paid_once_though_its_task_runs_twice"},
        ),
        (
            ("@task(rerun_after_crash=False)", "@task"),
            {"test_nobody_is_reminded_twice"},
        ),
        (
            ("delay=timedelta(days=3)", "delay=timedelta(days=4)"),
            {"test_customers_are_reminded_after_three_days"},
        ),
        (
            ("@task(every=timedelta(days=1))", "@task"),
            {"test_the_report_is_made_every_day"},
        ),
    ],
)
def test_they_catch_what_they_are_for(tmp_path: Path, mistake: tuple[str, str], caught_by: set[str]) -> None:
    assert failed(tmp_path, mistake=mistake) == caught_by
