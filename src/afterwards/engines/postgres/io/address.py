"""The address of a database: what the driver needs to connect, and what belongs to this engine."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import conninfo
from psycopg.errors import ProgrammingError

from afterwards.core.errors import UnsupportedEngine
from afterwards.core.urls import EngineURL

# A connection that is lost without a word (a cable, a firewall, a host that is gone) is noticed within seconds.
DEFAULTS = {
    "application_name": "afterwards",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "5000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A database and a schema in it."""

    parameters: dict[str, Any]  # for the driver
    schema: str | None  # None: the first one in the user's search path
    pooled: bool | None  # behind a pooler such as PgBouncer; None: find out
    shown: str  # the URL without its password
    clock: Callable[[], datetime] | None = None  # a test's; None: the server's

    @classmethod
    def of(cls, url: EngineURL, clock: Callable[[], datetime] | None = None) -> "Address":
        """Raises UnsupportedEngine for a URL that the driver cannot read."""
        try:
            given = conninfo.conninfo_to_dict(url.server)
        except ProgrammingError as error:
            reason = str(error).strip().replace(url.server, url.shown)
            raise UnsupportedEngine(f"{url.shown!r} cannot be read: {reason}") from None
        several = "," in str(given.get("host", ""))
        defaults = DEFAULTS | ({"target_session_attrs": "read-write"} if several else {})
        return cls(
            parameters=defaults | given | {"client_encoding": "UTF8"},
            schema=url.schema,
            pooled=url.pooled,
            shown=url.shown,
            clock=clock,
        )
