"""Migrate the tables by hand, for teams that do not let their applications do it."""

from collections.abc import Sequence

from afterwards.core.urls import parse
from afterwards.engines.postgres.io import schema
from afterwards.engines.postgres.io.address import Address
from afterwards.engines.postgres.io.connections import Connections, discard


async def pending(url: str) -> Sequence[str]:
    """Return the SQL statements that the tables have not seen, in order. None are left when they are up to date.

    Raises EngineUnavailable, EngineError, UnsupportedEngine.
    """
    address = Address.of(parse(url))
    connection = await Connections(address).connect()
    try:
        return await schema.pending(connection, address)
    finally:
        discard(connection)


async def migrate(url: str) -> bool:
    """Execute the statements that the tables have not seen. Returns False if there were none.

    Raises EngineUnavailable, EngineError, UnsupportedEngine.
    """
    address = Address.of(parse(url))
    connection = await Connections(address).connect()
    try:
        found = await schema.pending(connection, address)
        await schema.prepare(connection, address)
        return bool(found)
    finally:
        discard(connection)
