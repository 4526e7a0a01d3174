"""Where a run keeps its tasks: an SQLite file, or a PostgreSQL server behind a proxy that makes trouble."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from servers.postgres import CAREFUL, PostgresServer
from servers.proxy import Proxy


class Store(Protocol):
    @property
    def url(self) -> str:
        """The URL for those who want no trouble."""
        ...

    @property
    def url_through_proxy(self) -> str: ...

    @property
    def is_remote(self) -> bool:
        """True if several hosts may use it, and answers may be lost on the way."""
        ...

    def integrity(self) -> str:
        """Return "ok", or what is wrong with the store once nobody uses it any more."""
        ...

    def log(self) -> str:
        """Return what its server has said."""
        ...


@dataclass(frozen=True, slots=True)
class SQLiteStore:
    file: Path
    is_remote: bool = False

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}"

    @property
    def url_through_proxy(self) -> str:
        return self.url

    def integrity(self) -> str:
        with closing(sqlite3.connect(self.file)) as connection:
            return "; ".join(line for [line] in connection.execute("PRAGMA integrity_check"))

    def log(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class PostgresStore:
    server: PostgresServer
    proxy: Proxy
    database: str
    is_remote: bool = True

    @property
    def url(self) -> str:
        return self.server.url(self.database)

    @property
    def url_through_proxy(self) -> str:
        return self.url.replace(f":{self.server.port}/", f":{self.proxy.port}/")

    def integrity(self) -> str:
        """Find what PostgreSQL complained of, and transactions that nobody will end."""
        errors = [line for line in self.server.log().splitlines() if re.search(r"\b(ERROR|PANIC):", line)]
        wrong = [line for line in errors if not any(words in line for words in EXPECTED)]
        with self.server.connect(self.database) as connection:
            abandoned = connection.execute(ABANDONED).fetchall()
        wrong += [f"a session was left {state}, after: {query}" for state, query in abandoned]
        return "; ".join(dict.fromkeys(wrong)) or "ok"

    def log(self) -> str:
        return self.server.log()


EXPECTED = ("canceling statement due to", "terminating connection")

ABANDONED = """
SELECT state, query FROM pg_stat_activity
WHERE datname = current_database() AND state LIKE 'idle in transaction%' AND state_change < now() - interval '30 s'
"""


@contextmanager
def open_store(engine: str, folder: Path, seed: int) -> Iterator[Store]:
    """Make an empty store. Raises NotInstalled, or ValueError for an engine that has none here."""
    match engine:
        case "sqlite":
            yield SQLiteStore(folder / "tasks.db")
        case "postgres":
            with PostgresServer(CAREFUL) as server, Proxy(server.port, seed=seed) as proxy:
                yield PostgresStore(server, proxy, server.create_database())
        case _:
            raise ValueError(f"there is no chaos for {engine!r}: sqlite or postgres")
