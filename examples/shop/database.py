"""The shop's own database, which is separate from its tasks."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated

from fastapi import Depends

from shop.settings import settings

SCHEMA = """
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS customers (email TEXT PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS products (sku TEXT PRIMARY KEY, name TEXT NOT NULL, price INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, email TEXT NOT NULL, sku TEXT NOT NULL);
"""


def create_tables() -> None:
    with closing(_connect()) as connection:
        connection.executescript(SCHEMA)


def get_database() -> Iterator[sqlite3.Connection]:
    """Provide a connection to one request or task, and commit if it succeeds."""
    with closing(_connect()) as connection, connection:
        yield connection


Database = Annotated[sqlite3.Connection, Depends(get_database)]


def _connect() -> sqlite3.Connection:
    connection = sqlite3.connect(settings.database, timeout=30, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection
