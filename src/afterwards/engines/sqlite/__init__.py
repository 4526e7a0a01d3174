"""The engine that keeps tasks in one SQLite file."""

from afterwards.engines.sqlite.engine import SQLiteEngine

__all__ = ["SQLiteEngine"]
