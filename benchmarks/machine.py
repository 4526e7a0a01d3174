"""Describe the machine that the benchmarks run on."""

import os
import platform
import sqlite3
from statistics import median
from time import perf_counter

from benchmarks.measure import folder


def described() -> str:
    """Return one line, with the time of a disk sync, which durable writes depend on most."""
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"4 KiB written and synced in {_sync_time() * 1e6:.0f} us; medians of rounds in turns"
    )


def _sync_time(times: int = 200) -> float:
    """Return the seconds of a disk sync of one page."""
    with folder() as place:
        file = os.open(place / "page", os.O_WRONLY | os.O_CREAT)
        try:
            return median(_write_and_sync(file) for _ in range(times))
        finally:
            os.close(file)


def _write_and_sync(file: int) -> float:
    begun = perf_counter()
    os.write(file, bytes(4096))
    os.fsync(file)
    return perf_counter() - begun
