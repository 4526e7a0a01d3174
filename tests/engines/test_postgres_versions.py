"""Tables that the version before has made: they are migrated, and processes of both versions work on them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest
from postgres_calls import claim, end, until

from afterwards.core.settling import Raised
from afterwards.core.tallies import KEPT, STEP, Ends
from afterwards.core.task import Lease
from afterwards.engine import Query
from afterwards.engines.postgres import PostgresEngine
from afterwards.engines.postgres.io import schema

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres_plans")]

OLD_TASK = """
    INSERT INTO afterwards_tasks (id, name, arguments, created_at, state, queue, priority)
    VALUES (gen_random_uuid(), 'greet', '{}', 1, 'queued', 'default', 0) RETURNING id::text
"""

WAITING = "SELECT count(*) FROM pg_locks WHERE relation = 'afterwards_tasks'::regclass AND NOT granted"

OLD_WORKER = """
    INSERT INTO afterwards_workers (id, host, pid, started_at, names, queues, slots, seen_at, has_left)
    VALUES ('w', 'h', '1', 1, '["greet"]', NULL, 1, (extract(epoch FROM now()) * 1000000)::bigint, false)
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
"""


@contextmanager
def made_by_version(url: str, steps: int) -> Iterator[psycopg.Connection]:
    """Make the tables as they were after so many steps."""
    with psycopg.connect(url, autocommit=True) as connection:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(schema, "STEPS", schema.STEPS[:steps])
            patch.setattr(schema, "VERSION", schema.MAJOR * 1000 + steps)
            for statement in schema.statements(0, "public", create=False):
                connection.execute(statement)  # type: ignore[call-overload]
        yield connection


async def test_tables_of_the_version_before_are_migrated_and_still_serve_it(postgres_url: str) -> None:
    with made_by_version(postgres_url, 2) as old:
        [before] = old.execute(OLD_TASK).fetchone() or ()
        old.execute(OLD_WORKER)
        async with PostgresEngine(postgres_url) as engine:
            old.execute(OLD_WORKER)
            [after] = old.execute(OLD_TASK).fetchone() or ()
            tasks = await engine.claim(claim())
            assert [task.id for task in tasks] == [before, after]
            await engine.finish([end(tasks[0]), end(tasks[1], Raised(error=ValueError("no")))])
            found = await engine.find(Query(text="greet"))
            assert [(task.id, task.secrets, len(task.failures)) for task in found] == [(after, (), 1), (before, (), 0)]
            [worker] = await engine.workers(timedelta(minutes=1))
            assert (worker.id, worker.lag, worker.version, worker.running) == ("w", None, "", ())
            assert [tally.ends for tally in await engine.tallies(KEPT, STEP * 60)] == [Ends(1, 1, 0)]


async def test_what_the_version_before_stores_is_dispatched(postgres_url: str) -> None:
    with made_by_version(postgres_url, 3) as old:
        async with PostgresEngine(postgres_url) as engine:
            [id] = old.execute(OLD_TASK).fetchone() or ()
            found = await engine.dispatch(claim(), again=timedelta(minutes=1))
            assert [one.lease for one in found.tasks] == [Lease(id, 1)]


async def test_the_version_before_works_on_while_a_migration_waits_for_a_table(postgres_url: str) -> None:
    """An open transaction of the application has stored a task: the migration waits for its end."""
    with made_by_version(postgres_url, 2) as old, psycopg.connect(postgres_url) as application:
        application.execute(OLD_TASK)
        old.execute("SET lock_timeout = '3s'")
        engine = PostgresEngine(postgres_url)
        opening = asyncio.create_task(engine.__aenter__())
        await until(lambda: old.execute(WAITING).fetchone() == (1,))
        for _ in range(3):
            await asyncio.to_thread(old.execute, OLD_TASK)
        assert not opening.done()
        application.commit()
        await opening
        assert await engine.count(Query()) == 4
        await engine.__aexit__(None, None, None)
