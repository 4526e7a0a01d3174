"""Checks for what makes SQLite unsafe: versions with a bug, and file systems without working locks."""

import errno
import os
import re
from contextlib import suppress
from logging import WARNING
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from afterwards.core.errors import EngineError, UnsafeFileSystem
from afterwards.core.text import shown
from afterwards.telemetry import once

MOUNTS = Path("/proc/self/mounts")

UNSAFE = frozenset(
    {
        # Other machines may have the file open, too.
        "nfs",
        "nfs4",
        "cifs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "afs",
        "afpfs",
        "ncpfs",
        "coda",
        "ceph",
        "glusterfs",
        "lustre",
        "beegfs",
        "gpfs",
        "gfs2",
        "ocfs2",
        "orangefs",
        "pvfs2",
        "davfs",
        "davfs2",
        # The host of this virtual machine may have it open, too; and shared memory is not coherent even among our own
        # processes.
        "9p",
        "drvfs",
        "virtiofs",
        "vboxsf",
        "vmhgfs",
        "prl_fs",
        "fakeowner",
        "grpcfuse",
        "osxfs",
        # These are programs that act as a file system.
        "sshfs",
        "s3fs",
        "gcsfuse",
        "rclone",
        "goofys",
        "mountpoint-s3",
        "blobfuse",
        "blobfuse2",
        "juicefs",
        "seaweedfs",
        "gvfsd-fuse",
        "vmhgfs-fuse",
    }
)
"""Types of file systems on which SQLite's write-ahead log does not work, with or without ``fuse.`` before them."""


IN_MEMORY = frozenset({"tmpfs", "ramfs"})


class Mount(NamedTuple):
    point: str
    type: str


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Return True if a commit beside a checkpoint can damage the file (sqlite.org/wal.html#walresetbug)."""
    major, minor, patch = version
    repaired = patch >= {(3, 44): 6, (3, 50): 7}.get((major, minor), patch + 1)
    return (3, 7, 0) <= version < (3, 51, 3) and not repaired


def check_place(path: Path) -> None:
    """Raise EngineError if the folder is missing: making it would hide a volume that was not mounted.

    Also raise it for a file that could be opened, but would then lose or refuse stored tasks.
    """
    _check_length(path)
    if not path.parent.is_dir():
        raise EngineError(f"the folder {path.parent} of {path.name} does not exist: create it, or mount its volume")
    if path.is_dir():
        raise EngineError(f"{path} is a folder: add the name of the file, as {path / 'tasks.db'}")
    check_file_system(path)
    _check_names(path)
    for part in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        _check_writable(part)


def _check_length(path: Path) -> None:
    """Raise EngineError for a name that leaves no room for those of the files beside it."""
    try:
        path.with_name(f"{path.name}-journal").stat()  # no other is longer
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise EngineError(f"the name of the file {shown(path.name)} is too long: give a shorter one") from error


def _check_names(path: Path) -> None:
    """Raise UnsafeFileSystem for a file with another name: SQLite would keep a second log beside that one."""
    with suppress(FileNotFoundError):
        if (names := path.stat().st_nlink) > 1:
            raise UnsafeFileSystem(
                f"{path} has {names} names (hard links). Each name has a log of its own, so processes that open the "
                "file by different names would overwrite each other's tasks: keep one name, and copy the file instead "
                "(`await tasks.backup(path)`), or use a symbolic link"
            )


def _check_writable(path: Path) -> None:
    """Raise EngineError for an existing file that cannot be written. It is not opened: see ``file_locks``."""
    if path.exists() and not os.access(path, os.W_OK):
        raise EngineError(
            f"this process may not write to {path}: mount it writable, or make the user of the process the owner of "
            "the file and its folder"
        )


def check_file_system(path: Path) -> None:
    """Raise UnsafeFileSystem, or EngineError for a single mounted file.

    Nothing is checked if the kernel does not report file systems. Linux does report them.
    """
    try:
        mounts = MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return
    mount = mount_of(str(path), mounts)
    if mount and mount.point == str(path):
        raise EngineError(
            f"{path} is mounted as a single file, but SQLite keeps a log beside it, which would be lost: "
            f"mount its folder instead ({path.parent})"
        )
    if mount and mount.type in IN_MEMORY:
        once(
            f"in memory {mount.point}",
            WARNING,
            f"afterwards: {path} is on {mount.point}, a {mount.type} file system, which is memory: all tasks are lost "
            "when the machine or the container ends. Give a path on a disk",
        )
    if mount and is_unsafe(mount.type):
        raise UnsafeFileSystem(
            f"{path} is on {mount.point}, a {mount.type} file system, where SQLite's locks do not work and tasks "
            "would be lost: give a path on a local disk (in a container: a named volume, not a folder of the host)"
        )


def is_unsafe(type: str) -> bool:
    return type.removeprefix("fuse.") in UNSAFE


def mount_of(path: str, mounts: str) -> Mount | None:
    """Return the mount that holds a path: the deepest one above it, the last of several at the same point."""
    above = {path, *map(str, PurePosixPath(path).parents)}
    found = None
    for line in mounts.splitlines():
        _, point, type, *_ = map(_unescaped, line.split(" "))
        if point in above and (found is None or len(point) >= len(found.point)):
            found = Mount(point, type)
    return found


def _unescaped(field: str) -> str:
    """Return a field of the mount table, in which spaces and similar characters are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
