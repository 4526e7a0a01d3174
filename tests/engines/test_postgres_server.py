"""The engine and its server: addresses, errors at start, poolers, restarts, hints between processes."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from postgres_calls import claim, end, new

from afterwards.core.errors import EngineError, EngineUnavailable, UnsupportedEngine
from afterwards.core.task import NewTask, State, Task
from afterwards.engine import Query
from afterwards.engines import shared
from afterwards.engines.postgres import PostgresEngine
from afterwards.engines.postgres.io import schema
from afterwards.engines.postgres.rows import Row
from afterwards.engines.postgres.work import Operation, fetch
from servers.missing import missing
from servers.pgbouncer import pgbouncer
from servers.postgres import CAREFUL, PASSWORD, USER, NotInstalled, PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres_server")]

TIMEOUT = 30.0
LONG = timedelta(minutes=10)

_numbers = count(1)


async def works(url: str) -> None:
    """Store a task, run it, and see that it succeeded."""
    async with PostgresEngine(url) as engine:
        [stored] = await engine.enqueue([new()])
        [task] = await engine.claim(claim())
        assert task.id == stored.id
        assert await engine.finish([end(task)]) == []
        [ended] = await engine.find(Query())
        assert ended.state is State.SUCCEEDED


# Addresses.


@pytest.mark.parametrize(
    "form",
    [
        "postgresql://{user}:{password}@127.0.0.1:{port}/{database}",
        "postgres://{user}:{password}@127.0.0.1:{port}/{database}",
        "postgresql+psycopg://{user}:{password}@127.0.0.1:{port}/{database}",
        "postgresql+psycopg2://{user}:{password}@127.0.0.1:{port}/{database}?sslmode=disable",
        "postgresql+asyncpg://{user}:{password}@127.0.0.1:{port}/{database}?ssl=disable",
        "postgresql+asyncpg://{user}:{password}@127.0.0.1:{port}/{database}?prepared_statement_cache_size=0",
        "postgresql://{user}:{password}@/{database}?host=127.0.0.1&port={port}&application_name=shop",
        "postgresql://{user}@/{database}?host={folder}&port={port}",
        "postgresql://{user}@{quoted}:{port}/{database}",
        "postgresql://{user}:{password}@127.0.0.1:1,127.0.0.1:{port}/{database}",
        "postgresql://{user}:{password}@127.0.0.1:{port}/{database}?schema=My+%22odd%22+schema",
    ],
)
async def test_a_database_is_reached_however_its_address_is_written(
    postgres: PostgresServer, postgres_url: str, form: str
) -> None:
    database = postgres_url.rpartition("/")[2]
    folder = str(postgres.folder)
    parts = {"user": USER, "password": quote(PASSWORD), "port": postgres.port, "database": database}
    await works(form.format(**parts, folder=folder, quoted=quote(folder, safe="")))


async def test_the_tables_are_in_the_schema_that_the_url_names(postgres: PostgresServer, postgres_url: str) -> None:
    async with PostgresEngine(f"{postgres_url}?schema=jobs"), PostgresEngine(postgres_url):
        with psycopg.connect(postgres_url) as connection:
            found = connection.execute(
                "SELECT schemaname FROM pg_tables WHERE tablename = 'afterwards_tasks' ORDER BY 1"
            )
            assert found.fetchall() == [("jobs",), ("public",)]


async def test_a_batch_is_put_back_in_a_schema_whose_name_has_a_quote(postgres_url: str) -> None:
    async with PostgresEngine(f"{postgres_url}?schema=it%27s") as engine:
        await comes_back(engine)


async def test_who_may_only_use_the_tables_puts_a_batch_back(postgres_url: str) -> None:
    async with PostgresEngine(postgres_url):
        pass
    role = f"mover_of_{postgres_url.rpartition('/')[2]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
        async with PostgresEngine(re.sub("//[^:]+", f"//{role}", postgres_url)) as engine:
            await comes_back(engine)
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def comes_back(engine: PostgresEngine) -> None:
    """Hand tasks over, put them back, and see that they come behind one stored meanwhile, in their order."""
    moved, later = [new() for _ in range(3)], new()
    await engine.enqueue(moved)
    batch = await engine.hand_over("gone", limit=10)
    while batch is not None and not batch.tasks:
        batch = await engine.hand_over("gone", limit=10, done=batch)
    await engine.enqueue([later])
    put = await engine.put_back()
    assert put is not None and len(put.arrived.stored) == 3
    assert [task.id for task in await engine.claim(claim())] == [one.id for one in (later, *moved)]


@pytest.mark.afterwards(real=True)
def test_a_process_has_one_engine_for_a_url(postgres_url: str) -> None:
    assert isinstance(shared(postgres_url), PostgresEngine)
    assert shared(postgres_url) is shared(postgres_url)


# Errors at start: more of them are in test_postgres_bad_input.py.


async def refused(url: str) -> str:
    with pytest.raises(EngineError) as raised:
        async with PostgresEngine(url):
            pass
    assert "hunter2" not in str(raised.value)
    assert PASSWORD not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    "ending", ["127.0.0.1:port/db", "127.0.0.1:1/db?sslmode=maybe", "127.0.0.1:1/db?connect_timeout=abc"]
)
async def test_an_address_that_makes_no_sense(ending: str) -> None:
    assert "correct the URL" in await refused(f"postgresql://me:hunter2@{ending}")


async def test_tables_of_a_later_version(postgres_url: str) -> None:
    async with PostgresEngine(postgres_url):
        pass
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("UPDATE afterwards_schema SET version = version + 5")
        await works(postgres_url)  # it only adds
        connection.execute("UPDATE afterwards_schema SET version = 9001")
    assert "made by a later version of afterwards (schema 9" in await refused(postgres_url)


async def test_a_database_of_another_encoding(postgres: PostgresServer) -> None:
    with postgres.connect() as connection:
        connection.execute("DROP DATABASE IF EXISTS latin")
        connection.execute("CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
    assert "has the encoding LATIN1" in await refused(postgres.url("latin"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql:db", "too few slashes"),
        ("postgresql://me:hunter2@host/db?pgbouncer=maybe", "give true or false"),
        ("postgresql://me:hunter2@host/db?schema=", "no name of a schema"),
        ("postgresql://me:hunter2@host/db?colour=red", "colour"),
        ("postgresql://me:hunter2@[::1/db", "cannot be read"),
        ("postgresql://me:hunt#er2@host/db", "%23"),
    ],
)
def test_a_url_that_cannot_be_read(url: str, said: str) -> None:
    with pytest.raises(UnsupportedEngine, match=said) as raised:
        PostgresEngine(url)
    assert "hunter2" not in str(raised.value)


# Several processes start at the same time.


async def test_many_that_start_together_make_the_tables_once(postgres_url: str, tmp_path: Path) -> None:
    url = f"{postgres_url}?schema=together"
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(works_beside_others(url))
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT version FROM together.afterwards_schema").fetchall() == [(schema.VERSION,)]


async def works_beside_others(url: str) -> None:
    async with PostgresEngine(url) as engine:
        await engine.enqueue([new()])


# Poolers.


@pytest.fixture(scope="module")
def pooler(postgres: PostgresServer) -> Iterator[int]:
    with pgbouncer(postgres) as port:
        yield port


async def test_a_pooler_is_noticed_and_all_works(postgres_url: str, pooler: int) -> None:
    url = f"postgresql://{USER}@127.0.0.1:{pooler}/{postgres_url.rpartition('/')[2]}?schema=pooled"
    async with PostgresEngine(url) as engine, PostgresEngine(url) as other, PostgresEngine(postgres_url) as direct:
        assert engine._here().server.connections.pooled
        assert not direct._here().server.connections.pooled
        await asyncio.gather(*(engine.enqueue([new(limit_key="*") for _ in range(5)]) for _ in range(20)))
        tasks = list[Task]()
        while len(tasks) < 100:  # a claim passes by what another one looks at
            taken = await asyncio.gather(*(one.claim(claim(30)) for one in (engine, other) * 4))
            tasks += [task for some in taken for task in some]
        assert len({task.id for task in tasks}) == len(tasks) == 100
        assert await engine.finish([end(task) for task in tasks]) == []


async def test_behind_a_pooler_each_transaction_has_the_settings(postgres_url: str, pooler: int) -> None:
    url = f"postgresql://{USER}@127.0.0.1:{pooler}/{postgres_url.rpartition('/')[2]}"

    def settings() -> Operation[Sequence[Row]]:
        return (yield from fetch("SELECT current_setting('enable_seqscan'), current_setting('lock_timeout')"))

    async with PostgresEngine(url) as engine, PostgresEngine(postgres_url) as direct:
        for one in (engine, direct):
            assert await one._ask(settings) == [("off", "3s")]
            assert await one._transact(lambda _: settings()) == [("off", "3s")]
    with psycopg.connect(url) as connection:
        assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)


async def test_behind_a_pooler_a_worker_polls(postgres_url: str, pooler: int) -> None:
    url = f"postgresql://{USER}@127.0.0.1:{pooler}/{postgres_url.rpartition('/')[2]}?pgbouncer=true"
    async with PostgresEngine(url) as engine, PostgresEngine(url) as other:
        await engine.claim(claim())
        await other.enqueue([new()])
        deadline = time.monotonic() + TIMEOUT
        while not await engine.claim(claim()):
            assert time.monotonic() < deadline
            await engine.wait(LONG)


# Hints.


async def test_a_worker_of_another_process_is_told(postgres_url: str) -> None:
    async with PostgresEngine(postgres_url) as engine, PostgresEngine(postgres_url) as other:
        await until(lambda: engine._here().notifier.is_listening)
        await engine.claim(claim())
        async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
            group.create_task(engine.wait(LONG))
            await asyncio.sleep(0.05)
            await other.enqueue([new()])


# Restarts.


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    try:
        server = PostgresServer(CAREFUL)
    except NotInstalled as error:
        missing(str(error))
    with server:
        yield server


async def test_work_goes_on_by_itself_after_a_restart(server: PostgresServer) -> None:
    async with PostgresEngine(server.url()) as engine:
        [kept] = await engine.enqueue([new()])
        server.kill()
        began = time.monotonic()
        for call in (engine.enqueue([new()]), engine.claim(claim()), engine.stats()):
            with pytest.raises(EngineUnavailable):
                await call
        await engine.wait(timedelta(milliseconds=1))
        assert time.monotonic() - began < TIMEOUT
        await asyncio.to_thread(server.start)
        tasks = await persistently(engine)
        assert kept.id in {task.id for task in tasks}
        await until(lambda: engine._here().notifier.is_listening)


async def persistently(engine: PostgresEngine) -> list[NewTask]:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return await engine.claim(claim())  # type: ignore[return-value]
        except EngineUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_a_connection_that_the_server_has_ended_is_replaced_unseen(postgres_url: str) -> None:
    async with PostgresEngine(postgres_url) as engine:
        await engine.enqueue([new()])
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert len(await engine.claim(claim())) == 1
        await engine.enqueue([new()])


async def until(condition: object) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


FORKED = """
import asyncio, os, sys, threading
from afterwards.engines.postgres import PostgresEngine
from postgres_calls import new

async def store() -> None:
    await engine.enqueue([new()])

async def main() -> None:
    async with engine:
        await store()
        child = os.fork()
        if child == 0:
            thread = threading.Thread(target=asyncio.run, args=(store(),))
            thread.start()
            thread.join(30)
            os._exit(0)
        os.waitpid(child, 0)
        await store()
        print(sum((await engine.stats()).counts.values()))

engine = PostgresEngine(sys.argv[1])
asyncio.run(main())
"""


def test_a_forked_process_connects_by_itself(postgres_url: str) -> None:
    here = Path(__file__).parent
    command = [sys.executable, "-W", "ignore", "-c", FORKED, postgres_url]
    environment = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "3\n", done.stderr
