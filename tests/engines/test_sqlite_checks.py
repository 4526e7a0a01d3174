"""Versions of SQLite with a bug, and file systems without working locks."""

import os
from pathlib import Path

import pytest

from afterwards.core.errors import EngineError, UnsafeFileSystem
from afterwards.engines.sqlite.io import checks
from afterwards.engines.sqlite.io.checks import Mount, check_place, has_wal_reset_bug, is_unsafe, mount_of

MOUNTS = r"""overlay / overlay rw,relatime,lowerdir=/l,upperdir=/u 0 0
proc /proc proc rw 0 0
/dev/vda1 /data ext4 rw 0 0
server:/export /data/shared nfs4 rw,vers=4.2 0 0
tmpfs /data/shared/fast tmpfs rw 0 0
//server/share /mnt/with\040space cifs rw 0 0
me@host:/ /home/me/remote fuse.sshfs rw 0 0
/dev/vdb1 /twice ext4 rw 0 0
server:/x /twice nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_the_versions_with_the_wal_reset_bug_are_known(version: tuple[int, int, int], has_it: bool) -> None:
    assert has_wal_reset_bug(version) is has_it


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/tasks.db", Mount("/", "overlay")),
        ("/data/tasks.db", Mount("/data", "ext4")),
        ("/database/tasks.db", Mount("/", "overlay")),
        ("/data/shared/tasks.db", Mount("/data/shared", "nfs4")),
        ("/data/shared/fast/tasks.db", Mount("/data/shared/fast", "tmpfs")),
        ("/mnt/with space/tasks.db", Mount("/mnt/with space", "cifs")),
        ("/twice/tasks.db", Mount("/twice", "nfs")),
    ],
)
def test_a_path_lies_on_the_deepest_and_latest_mount(path: str, mount: Mount) -> None:
    assert mount_of(path, MOUNTS) == mount


def test_a_path_may_lie_on_nothing_that_is_known() -> None:
    assert mount_of("/tasks.db", "") is None


@pytest.mark.parametrize(
    "type", ["nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "fuse.sshfs", "fuse.grpcfuse"]
)
def test_file_systems_that_others_share_are_unsafe(type: str) -> None:
    assert is_unsafe(type)


@pytest.mark.parametrize(
    "type", ["ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "apfs", "fuseblk", "fuse.mergerfs"]
)
def test_file_systems_of_this_machine_are_safe(type: str) -> None:
    assert not is_unsafe(type)


def test_a_network_file_system_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/export {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(checks, "MOUNTS", mounts)
    with pytest.raises(UnsafeFileSystem, match=rf"is on {tmp_path}, a nfs4 file system.*local disk"):
        check_place(tmp_path / "tasks.db")


@pytest.mark.parametrize("kind", ["tmpfs", "ramfs", "ext4"])
def test_a_file_in_memory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"{kind} {tmp_path} {kind} rw 0 0\n")
    monkeypatch.setattr(checks, "MOUNTS", mounts)
    for _ in range(2):
        check_place(tmp_path / "tasks.db")
    assert caplog.text.count(f"is on {tmp_path}, a {kind} file system, which is memory") == (kind != "ext4")


def test_where_the_kernel_does_not_tell_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MOUNTS", tmp_path / "nothing")
    check_place(tmp_path / "tasks.db")


def test_a_missing_folder_is_refused_for_it_may_be_a_missing_volume(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"the folder .*missing.* does not exist: create it, or mount"):
        check_place(tmp_path / "missing" / "tasks.db")


def test_a_file_that_is_a_mount_point_by_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda1 / ext4 rw 0 0\n/dev/vda1 {tmp_path}/tasks.db ext4 rw 0 0\n")
    monkeypatch.setattr(checks, "MOUNTS", mounts)
    (tmp_path / "tasks.db").touch()
    with pytest.raises(EngineError, match=rf"mounted as a single file.*mount its folder instead \({tmp_path}\)"):
        check_place(tmp_path / "tasks.db")
    check_place(tmp_path / "other.db")


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    (tmp_path / "tasks.db").touch()
    part = tmp_path / f"tasks.db{end}"
    part.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != part)  # root may write whatever its mode
    with pytest.raises(EngineError, match=rf"may not write to .*{part}"):
        check_place(tmp_path / "tasks.db")


def test_a_file_with_two_names_is_refused_by_both(tmp_path: Path) -> None:
    path, other = tmp_path / "tasks.db", tmp_path / "other" / "tasks.db"
    path.touch()
    other.parent.mkdir()
    other.hardlink_to(path)
    for name in (path, other):
        with pytest.raises(UnsafeFileSystem, match=r"tasks\.db has 2 names \(hard links\)"):
            check_place(name)
    other.unlink()
    check_place(path)


def test_a_symbolic_link_is_no_second_name(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").touch()
    (tmp_path / "link.db").symlink_to("tasks.db")
    check_place(tmp_path / "link.db")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is a folder"):
        check_place(tmp_path)


@pytest.mark.parametrize("length", [248, 300])
def test_a_name_that_leaves_no_room_for_the_files_beside_it_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(EngineError, match="is too long: give a shorter one"):
        check_place(tmp_path / ("y" * length))
