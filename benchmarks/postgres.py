"""Benchmark: PostgreSQL, against PgQueuer and Procrastinate on the same private server, which syncs what it commits."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType

import psycopg
from tests.servers.postgres import CAREFUL, PostgresServer

from afterwards.engines import shared
from benchmarks import claim, drain, enqueue, latency, pgqueuers, procrastinates, requests
from benchmarks.measure import Aim, Figure, apart, in_turns
from benchmarks.tasks import AT_ONCE

ROUNDS = 3
CALLERS = 50
FEW, MANY = 20_000, 150_000
FINISHED, QUEUED = 1_000_000, 100_000
SLOW = 2_000
"""Tasks for Procrastinate, which needs a minute for 20,000."""

COLUMNS = "SELECT column_name FROM information_schema.columns WHERE table_name = 'afterwards_tasks'"

# Copies of a row in SQL; through the engine, a million rows would take minutes.
COPY = """
    INSERT INTO afterwards_tasks (id, {columns})
    SELECT gen_random_uuid(), {columns} FROM (SELECT * FROM afterwards_tasks WHERE state = %s LIMIT 1) AS one,
        generate_series(1, %s)
"""


def figures() -> list[Figure]:
    with PostgresServer(CAREFUL) as server:
        return [
            *_enqueue(server, "enqueue, 50 coroutines", CALLERS, 1, Aim(4)),
            *_enqueue(server, f"enqueue, {AT_ONCE:,} in each call", 1, AT_ONCE, Aim(1.5)),
            *_drain(server),
            *_claims(server),
            *_latency(server),
            *_requests(server),
        ]


def _enqueue(server: PostgresServer, what: str, callers: int, at_once: int, aim: Aim) -> Iterator[Figure]:
    us, pgqueuer, procrastinate = in_turns(
        ROUNDS,
        partial(_alone, server, None, enqueue.ours, callers, at_once),
        partial(_alone, server, pgqueuers, pgqueuers.enqueues, callers, at_once),
        partial(_alone, server, procrastinates, procrastinates.enqueues, callers, at_once),
    )
    yield Figure(what=what, ours=us, peer="PgQueuer", theirs=pgqueuer, aim=aim)
    yield Figure(what=what, ours=us, peer="Procrastinate", theirs=procrastinate)


def _drain(server: PostgresServer) -> Iterator[Figure]:
    us, long, pgqueuer, pgqueuer_long, procrastinate = in_turns(
        ROUNDS,
        partial(_alone, server, None, drain.ours, FEW),
        partial(_alone, server, None, drain.ours, MANY),
        partial(_alone, server, pgqueuers, pgqueuers.drains, FEW),
        partial(_alone, server, pgqueuers, pgqueuers.drains, MANY),
        partial(_alone, server, procrastinates, procrastinates.drains, SLOW),
    )
    yield Figure(what=f"drain, {FEW:,} tasks", ours=us, peer="PgQueuer", theirs=pgqueuer, aim=Aim(1.2))
    yield Figure(what=f"drain, {MANY:,} tasks", ours=long, peer=f"our own {FEW:,}", theirs=us, aim=Aim(0.9))
    yield Figure(what=f"drain, {MANY:,} tasks", ours=long, peer="PgQueuer", theirs=pgqueuer_long)
    yield Figure(what=f"drain, {FEW:,} tasks", ours=us, peer=f"Procrastinate, {SLOW:,}", theirs=procrastinate)


def _claims(server: PostgresServer) -> Iterator[Figure]:
    with _database(server) as few, _database(server) as many:
        short, long = apart(_claim_times, few, many)
    what = f"claim of 100, {FINISHED:,} finished and {QUEUED:,} queued beside"
    yield Figure(what=what, ours=long, peer=f"{claim.FEW:,} queued", theirs=short, unit=" ms", aim=claim.AIM)


def _claim_times(few: str, many: str) -> list[list[float]]:
    return asyncio.run(_claim_times_of(few, many))


async def _claim_times_of(few: str, many: str) -> list[list[float]]:
    async with shared(many) as engine:
        await claim.finish_one(engine)
        await claim.queue_one(engine)
    with psycopg.connect(many, autocommit=True) as server:
        columns = [name for [name] in server.execute(COLUMNS) if name not in ("seq", "id")]
        for state, number in (("succeeded", FINISHED), ("queued", QUEUED)):
            server.execute(COPY.format(columns=", ".join(columns)).encode(), (state, number))
        server.execute("VACUUM ANALYZE afterwards_tasks")  # autovacuum would do it soon
    return await claim.in_stores([few, many])


def _latency(server: PostgresServer) -> Iterator[Figure]:
    us, pgqueuer, procrastinate = in_turns(
        ROUNDS,
        partial(_between, server, None, latency.send, latency.receive),
        partial(_between, server, pgqueuers, pgqueuers.sends, pgqueuers.receives),
        partial(_between, server, procrastinates, procrastinates.sends, procrastinates.receives),
    )
    for percent, aim in ((50, Aim(1, at_most=True)), (99, None)):
        ours, what = latency.percentiles(us, percent), f"latency between idle processes, p{percent}"
        peers = (("PgQueuer", pgqueuer, aim), ("Procrastinate", procrastinate, None))
        for peer, waits, its_aim in peers:
            theirs = latency.percentiles(waits, percent)
            yield Figure(what=what, ours=ours, peer=peer, theirs=theirs, unit=" ms", aim=its_aim)


def _requests(server: PostgresServer) -> Iterator[Figure]:
    with _database(server) as store:
        yield from requests.compared(store, 32, Aim(0.5))


def _alone(server: PostgresServer, peer: ModuleType | None, contender: Callable[..., float], *arguments: int) -> float:
    """Run a contender in a process and a database of its own."""
    with _database(server, peer) as store:
        return apart(contender, store, *arguments)


def _between(
    server: PostgresServer,
    peer: ModuleType | None,
    send: Callable[[str], None],
    receive: Callable[[str], latency.Waits],
) -> latency.Waits:
    with _database(server, peer) as store:
        return latency.between(send, receive, store)


@contextmanager
def _database(server: PostgresServer, peer: ModuleType | None = None) -> Iterator[str]:
    """Provide a new database, with the peer's tables; we make ours when a store is opened."""
    name = server.create_database()
    if peer is not None:
        apart(peer.install, server.url(name))
    yield server.url(name)
    server.drop_database(name)
