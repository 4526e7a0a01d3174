"""Errors about a PostgreSQL database or its URL come at the start, say what to do, and hide the password."""

import re
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from afterwards import AfterwardsError, EngineError, EngineUnavailable
from afterwards.engine import Query
from afterwards.engines import shared
from afterwards.engines.postgres import PostgresEngine
from afterwards.engines.postgres.io.errors import translated_at_connecting
from afterwards.testing.conformance.joining import DriverTransaction
from face.processes import run
from face.serving import working
from servers import old_postgres, refusing_postgres
from servers.postgres import OLDEST, PASSWORD, PostgresServer

pytestmark = [pytest.mark.afterwards(real=True), pytest.mark.anyio]

SECRET = "wr0ng-and-s3cret"


async def trouble_with(url: str) -> str:
    """The message with which an application on this store refuses to start."""
    with pytest.raises(AfterwardsError) as raised:
        async with working(url):
            pass
    shown = "".join(traceback.format_exception(raised.value))
    assert SECRET not in shown and PASSWORD not in shown, shown
    assert isinstance(raised.value, EngineError)
    return str(raised.value)


@contextmanager
def a_role(server: PostgresServer, database: str, *, may: str = "") -> Iterator[str]:
    """A user of this database without rights, and its URL."""
    role = sql.Identifier(f"limited_in_{database}")
    with server.connect(database) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(SECRET)))
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as it is from PostgreSQL 15 on
        yield server.url(database, user=f"limited_in_{database}", password=SECRET)
        connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
        connection.execute(sql.SQL("DROP ROLE {}").format(role))


def the_database(url: str) -> str:
    return url.rpartition("/")[2]


async def test_a_wrong_password(postgres: PostgresServer) -> None:
    said = await trouble_with(postgres.url(password=SECRET))
    assert re.search(r"password.*correct .* in the URL", said)
    assert f"owner:***@127.0.0.1:{postgres.port}" in said


async def test_an_unknown_user(postgres: PostgresServer) -> None:
    assert re.search(
        r"password.*correct .* in the URL", await trouble_with(postgres.url(user="nobody", password=SECRET))
    )


async def test_an_unknown_database(postgres: PostgresServer) -> None:
    assert re.search(r'create it.*"nowhere" does not exist', await trouble_with(postgres.url("nowhere")))


async def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    said = await trouble_with(f"postgresql://somebody:{SECRET}@127.0.0.1:{port}/tasks")
    assert re.search(rf"cannot be reached.*{port}.*refused", said)


async def test_a_host_that_nobody_knows() -> None:
    said = await trouble_with(f"postgresql://somebody:{SECRET}@host.invalid/tasks")
    assert re.search(r"cannot be reached.*host\.invalid", said)


async def test_a_server_that_does_not_speak() -> None:
    """Only the kernel accepts the connection: the start waits for a bounded time."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert "cannot be reached" in await trouble_with(f"postgresql://somebody:{SECRET}@127.0.0.1:{port}/tasks")


GERMAN = "Passwort-Authentifizierung für Benutzer »shop« fehlgeschlagen"
RUSSIAN = 'база данных "tasks" не существует'


@pytest.mark.parametrize(
    ("severity", "code", "said"), [("FATAL", "28P01", GERMAN), ("ВАЖНО", "3D000", RUSSIAN)], ids=["german", "russian"]
)
async def test_a_refusal_in_another_language(severity: str, code: str, said: str) -> None:
    with refusing_postgres.serving(code, severity, said, asks=True) as port:
        told = await trouble_with(f"postgresql://shop:{SECRET}@127.0.0.1:{port}/tasks")
    assert "refused this user, password or database: correct them in the URL" in told
    assert said in told


async def test_a_missing_password_in_another_language() -> None:
    with refusing_postgres.serving("28P01", "FATAL", GERMAN, asks=True) as port:
        told = await trouble_with(f"postgresql://shop@127.0.0.1:{port}/tasks?passfile=/none")
    assert "password" in told and "in the URL" in told


@pytest.mark.parametrize(
    ("said", "asks"),
    [
        ("sorry, too many clients already", False),
        ("remaining connection slots are reserved for roles with the SUPERUSER attribute", True),
        ("Das Datenbanksystem startet", False),
    ],
)
async def test_a_refusal_that_passes(said: str, asks: bool) -> None:
    with (
        refusing_postgres.serving("53300", "FATAL", said, asks=asks) as port,
        pytest.raises(EngineUnavailable, match="cannot be reached"),
    ):
        await PostgresEngine(f"postgresql://shop:{SECRET}@127.0.0.1:{port}/tasks").__aenter__()


async def test_a_server_that_is_too_old() -> None:
    with old_postgres.serving("12.22") as port:
        said = await trouble_with(f"postgresql://somebody:{SECRET}@127.0.0.1:{port}/tasks")
    assert re.search(rf"PostgreSQL 12\b.*{OLDEST} or newer", said)


def test_a_missing_driver(tmp_path: Path, postgres: PostgresServer) -> None:
    ran = run(
        f"""
        import asyncio, sys
        sys.modules["psycopg"] = None  # as if it were not installed
        from fastapi import FastAPI
        from afterwards import Afterwards
        app = FastAPI()
        Afterwards(app, {postgres.url()!r})
        async def main():
            async with app.router.lifespan_context(app):
                pass
        asyncio.run(main())
        """,
        tmp_path,
    )
    assert ran.returncode
    assert "pip install 'afterwards[postgres]'" in ran.stderr.splitlines()[-1]
    assert PASSWORD not in ran.stderr


@pytest.mark.parametrize("known", [False, True], ids=["without tables", "with tables"])
async def test_a_standby(postgres: PostgresServer, postgres_url: str, known: bool) -> None:
    if known:
        async with working(postgres_url):
            pass
    with postgres.standby() as standby:
        said = await trouble_with(standby.url(the_database(postgres_url)))
    assert re.search(r"standby.*address of the primary", said)


async def test_a_transaction_on_a_standby_is_not_joined(postgres: PostgresServer, postgres_url: str) -> None:
    """A standby's identity is that of its primary. Sessions that read from it have their tasks stored elsewhere."""
    async with PostgresEngine(postgres_url) as engine:
        with postgres.standby() as standby, standby.connect(the_database(postgres_url)) as connection:
            assert engine.join(DriverTransaction("postgresql", connection)) is None


@pytest.mark.parametrize("known", [False, True], ids=["without tables", "with tables"])
async def test_a_database_that_is_only_read(postgres: PostgresServer, postgres_url: str, known: bool) -> None:
    if known:
        async with working(postgres_url):
            pass
    with postgres.connect(database := the_database(postgres_url)) as connection:
        connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    said = await trouble_with(postgres_url)
    assert re.search(r"cannot be written|read-only", said)
    assert re.search(r"default_transaction_read_only|address of the primary", said), "what to do"


async def test_no_permission_to_create_tables(postgres: PostgresServer, postgres_url: str) -> None:
    with a_role(postgres, the_database(postgres_url)) as url:
        said = await trouble_with(url)
    assert re.search(r"GRANT .*CREATE.* ON SCHEMA", said)
    assert "afterwards migrate" in said


async def test_no_permission_to_connect(postgres: PostgresServer, postgres_url: str) -> None:
    with postgres.connect(database := the_database(postgres_url)) as connection:
        connection.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")
    with a_role(postgres, database) as url:
        assert "GRANT CONNECT ON DATABASE" in await trouble_with(url)


async def test_no_permission_for_tables_that_others_made(postgres: PostgresServer, postgres_url: str) -> None:
    async with working(postgres_url):
        pass
    with a_role(postgres, the_database(postgres_url)) as url:
        assert re.search(r"permission denied for .*afterwards_.*GRANT", await trouble_with(url))


async def test_who_may_only_use_the_tables_works(postgres: PostgresServer, postgres_url: str) -> None:
    """Teams that run `afterwards migrate` by hand give the application no right to create anything."""
    async with working(postgres_url):
        pass
    with a_role(postgres, database := the_database(postgres_url)) as url:
        with postgres.connect(database) as connection:
            rights = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
            connection.execute(f"GRANT {rights} TO limited_in_{database}")
        async with working(url), shared(url) as engine:
            assert await engine.find(Query()) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda url: url.replace("postgresql:", "postgress:"), r"postgress.*postgresql://"),
        (lambda url: f"{url}?shema=jobs", r"shema"),
        (lambda url: f"{url}?schema=", r"schema"),
        (lambda url: f"{url}?pgbouncer=perhaps", r"pgbouncer.*true"),
        (lambda url: re.sub(r":\d+/", ":five/", url), r"five"),
    ],
    ids=["scheme", "parameter", "empty schema", "pgbouncer", "port"],
)
async def test_a_url_with_a_mistake(postgres_url: str, wrong: Callable[[str], str], said: str) -> None:
    url = wrong(postgres_url)
    with pytest.raises(AfterwardsError) as raised:
        async with working(url):
            pass
    assert re.search(said, str(raised.value)), raised.value
    assert PASSWORD not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "port 5 failed: Connection refused\n\tIs the server running on that host?",
            "port 5 failed: Connection refused",
        ),
        ("FATAL:  not yet accepting connections\nDETAIL:  Recovery goes on.", "FATAL:  not yet accepting connections"),
        ("two failed\nAll failures were:\n- one: slow\n- another: refused", "- another: refused"),
        ("", "no reason was given"),
    ],
)
async def test_the_reason_is_said_without_the_drivers_hints(said: str, reason: str) -> None:
    error = translated_at_connecting(psycopg.OperationalError(said), "the database")
    assert str(error) == f"the database cannot be reached: {reason}"
