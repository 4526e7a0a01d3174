"""What a file holds, as nobody sees it who works with it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def asked(path: Path, statement: str, *values: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path, timeout=20)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def fired(path: Path, name: str) -> tuple[int, int]:
    """When a schedule was fired last, in seconds, and how many tasks there are of it, both at one moment."""
    [(last, many)] = asked(
        path,
        "SELECT coalesce(last_fire, 0) / 1000000, (SELECT count(*) FROM afterwards_tasks AS task WHERE task.name = ?1) "
        "FROM afterwards_schedules WHERE name = ?1",
        name,
    )
    return last, many
