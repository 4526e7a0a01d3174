"""Ask a store about its tasks, beside the engine."""

import sqlite3
from contextlib import closing
from pathlib import Path

from afterwards.core.urls import parse

LEFT = """
    SELECT CAST(EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'running') AS integer)
        + CAST(EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'queued') AS integer)
        + CAST(EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'scheduled') AS integer)
        + CAST(EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'waiting') AS integer)
"""
LEASED_AS_STORED = "SELECT avg(CASE WHEN started_at = created_at THEN 100.0 ELSE 0.0 END) FROM afterwards_tasks"
SUCCEEDED = "SELECT count(*) FROM afterwards_tasks WHERE state = 'succeeded'"


def ask(store: str, question: str) -> float:
    """Return the number that a question has as its answer."""
    parsed = parse(store)
    if parsed.kind == "sqlite":
        with closing(sqlite3.connect(f"file:{Path(parsed.file).absolute()}?mode=ro", uri=True)) as connection:
            return float(connection.execute(question).fetchone()[0])
    import psycopg  # the SQLite benchmarks need no driver

    with psycopg.connect(store) as server:
        [answer] = server.execute(question.encode()).fetchone() or (0,)
        return float(answer)


def left(store: str) -> int:
    """Return 0 if every task has ended."""
    return int(ask(store, LEFT))
