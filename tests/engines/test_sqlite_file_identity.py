"""Whether the files that a connection has open are still those that their paths name."""

import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from afterwards.core.task import NewTask, task_id
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.engines.sqlite.io import file_identity
from afterwards.engines.sqlite.io.file_identity import OpenFiles

TIMEOUT = 30.0
"""Seconds of real time after which what should happen is held to be missing."""


@pytest.fixture(autouse=True)
def _fine_timestamps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_identity, "COARSEST_TIMESTAMP", 100_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for end in ("", "-wal", "-shm"):
        (folder / f"tasks.db{end}").touch()
    return folder / "tasks.db"


@pytest.fixture
def opened(path: Path) -> OpenFiles:
    opened = OpenFiles(str(path))
    wait_until_the_folder_tells(opened)
    return opened


def wait_until_the_folder_tells(opened: OpenFiles) -> None:
    """From then on the files themselves are not looked at while the folder stays as it is."""
    deadline = time.monotonic() + TIMEOUT
    while sys.platform == "linux" and opened._stamp is None:
        assert not opened.have_changed()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def delete(path: Path) -> None:
    path.unlink()


def delete_log(path: Path) -> None:
    path.with_name("tasks.db-wal").unlink()


def delete_index(path: Path) -> None:
    path.with_name("tasks.db-shm").unlink()


def replace(path: Path) -> None:
    path.with_name("restored.db").touch()
    os.replace(path.with_name("restored.db"), path)


def restore_with_its_old_timestamp(path: Path) -> None:
    """As rsync does: it sets the time of the folder, too."""
    found = os.stat(path.parent)
    replace(path)
    os.utime(path.parent, ns=(found.st_atime_ns, found.st_mtime_ns))


def replace_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("old"))
    path.parent.mkdir()


def move_the_folder_away(path: Path) -> None:
    path.parent.rename(path.parent.with_name("old"))


@pytest.mark.parametrize(
    "change",
    [
        delete,
        delete_log,
        delete_index,
        replace,
        restore_with_its_old_timestamp,
        replace_the_folder,
        move_the_folder_away,
    ],
)
def test_a_change_of_the_files_is_seen(opened: OpenFiles, path: Path, change: Callable[[Path], None]) -> None:
    assert not opened.have_changed()
    change(path)
    assert opened.have_changed()


def test_two_changes_under_one_timestamp_are_both_seen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on FAT, whose timestamps have steps of two seconds."""
    fine, step = file_identity._stamp, 2_000_000_000

    def coarse(folder: str) -> file_identity.Stamp | None:
        stamp = fine(folder)
        return stamp and (*stamp[:2], stamp[2] // step * step)

    monkeypatch.undo()
    monkeypatch.setattr(file_identity, "_stamp", coarse)
    opened = OpenFiles(str(path))
    path.with_name("another").touch()
    assert not opened.have_changed()
    replace(path)
    assert opened.have_changed()


def test_what_else_happens_in_the_folder_is_no_change(opened: OpenFiles, path: Path) -> None:
    path.with_name("another").touch()
    path.write_text("written")
    assert not opened.have_changed()


@pytest.mark.anyio
async def test_what_was_acknowledged_survives_a_log_that_is_deleted_long_after_the_start(tmp_path: Path) -> None:
    path = tmp_path / "real.db"
    new = [NewTask(id=task_id(datetime.now(UTC), os.urandom(10)), name="f", arguments="{}") for _ in range(3)]
    async with SQLiteEngine(path) as engine:
        await engine.enqueue(new[:1])
        assert engine._opened
        assert engine._opened.writer._files
        wait_until_the_folder_tells(engine._opened.writer._files)
        await engine.enqueue(new[1:2])
        path.with_name("real.db-wal").unlink()
        await engine.enqueue(new[2:])
    async with SQLiteEngine(path) as engine:
        assert {task.id for task in await engine.find(Query())} == {one.id for one in new}
