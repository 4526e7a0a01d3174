"""A folder with an application and its store, made once and copied for each test."""

import shutil
from pathlib import Path

import pytest

from cli.commands import APPLICATION, CANARY, STORE, WAITING, program
from face.processes import output


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks have succeeded, three have failed, one is queued, and one is scheduled."""
    folder = tmp_path_factory.mktemp("application")
    (folder / "main.py").write_text(APPLICATION)
    output(STORE.format(canary=CANARY), folder)
    worked = program(folder, "worker", "--burst")
    assert worked.returncode == 0, worked.stderr
    output(WAITING, folder)
    return folder


@pytest.fixture
def shop(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the prepared folder."""
    leave_out = shutil.ignore_patterns("*-run", "*-shm")  # what belongs to processes that have ended
    return Path(shutil.copytree(prepared, tmp_path / "shop", ignore=leave_out))
