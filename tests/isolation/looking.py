"""Looks at processes from outside."""

import os
from contextlib import suppress
from pathlib import Path


def lives(pid: int) -> bool:
    """Whether there is such a process; one that has ended and that its parent has not looked at counts as none."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc").exists()


def pid_in(file: Path) -> int | None:
    """The process id that a function has written, once it has."""
    text = file.read_text() if file.exists() else ""
    return int(text) if text.endswith("\n") else None
