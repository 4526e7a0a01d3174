"""The engine that keeps tasks in a PostgreSQL database."""

from afterwards.engines.postgres.engine import PostgresEngine

__all__ = ["PostgresEngine"]
