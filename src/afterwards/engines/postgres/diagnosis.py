"""Facts about a database that an operator should know."""

from dataclasses import dataclass
from datetime import datetime

from afterwards.core.urls import parse
from afterwards.engines.postgres.io import schema
from afterwards.engines.postgres.io.address import Address
from afterwards.engines.postgres.io.connections import Connections, discard


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A PostgreSQL database, as one connection finds it."""

    version: int  # of the server, as 160003
    pooled: bool  # behind PgBouncer or another pooler
    pending: int  # statements of migrations that the tables have not seen
    now: datetime  # by the server's clock


async def diagnose(url: str) -> Diagnosis:
    """Return the facts about a database, and change nothing. Raises EngineUnavailable, EngineError."""
    address = Address.of(parse(url))
    connections = Connections(address)
    connection = await connections.connect()
    try:
        pending = await schema.pending(connection, address)
        [(now,)] = await (await connection.execute("SELECT clock_timestamp()")).fetchall()
        return Diagnosis(
            version=connection.info.server_version, pooled=bool(connections.pooled), pending=len(pending), now=now
        )
    finally:
        discard(connection)
