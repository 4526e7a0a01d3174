"""Benchmark: requests per second of a real server, one task each, until all accepted tasks have finished."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from urllib.request import urlopen

from benchmarks.load import Load, load
from benchmarks.measure import Aim, Figure, apart, folder, in_turns
from benchmarks.server import Server, can_count_syncs, counting_syncs, served

ROUNDS = 5
SECONDS = 2.0
CONNECTIONS = (1, 32, 64)

LEFT = """
    SELECT EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'running')
        + EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'queued')
        + EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'scheduled')
        + EXISTS (SELECT 1 FROM afterwards_tasks WHERE state = 'waiting')
"""
LEASED_AS_STORED = "SELECT 100.0 * avg(started_at = created_at) FROM afterwards_tasks"
SUCCEEDED = "SELECT count(*) FROM afterwards_tasks WHERE state = 'succeeded'"


def figures() -> list[Figure]:
    return [figure for connections in CONNECTIONS for figure in _figures(connections)]


def _figures(connections: int) -> Iterator[Figure]:
    what = f"{connections} connections" if connections > 1 else "1 connection"
    with _both() as (durable, bare):
        loads = [partial(load_durable, durable, connections), partial(load_bare, bare, connections)]
        ours, plain = ([one.rate for one in came] for came in in_turns(ROUNDS, *loads))
        leased_as_stored = _ask(durable.file, LEASED_AS_STORED)
    aim = Aim(0.6) if connections > 1 else None
    yield Figure(what=what, ours=ours, peer="FastAPI's BackgroundTasks", theirs=plain, aim=aim)
    yield Figure(what=f"{what}, tasks of 100 that are leased as they are stored", ours=[leased_as_stored], unit="")
    if can_count_syncs():
        yield Figure(what=f"{what}, syncs per 100 requests", ours=[_syncs(connections) * 100], unit="")


@contextmanager
def _both() -> Iterator[tuple[Server, Server]]:
    """Serve both applications, warmed up."""
    with folder() as place, ExitStack() as stack:
        durable = stack.enter_context(served("durable", place / "tasks.db"))
        bare = stack.enter_context(served("bare", place / "none.db"))
        load_durable(durable, 8, seconds=0.5)
        load_bare(bare, 8, seconds=0.5)
        yield durable, bare


def load_bare(server: Server, connections: int, seconds: float = SECONDS) -> Load:
    return apart(load, server.port, connections, seconds, partial(_left_there, server.port))


def load_durable(server: Server, connections: int, seconds: float = SECONDS) -> Load:
    """Load the durable server. Raises AssertionError unless as many tasks have succeeded as were accepted."""
    before = _ask(server.file, SUCCEEDED)
    result = apart(load, server.port, connections, seconds, partial(_left_in, server.file))
    succeeded = _ask(server.file, SUCCEEDED) - before
    assert succeeded == result.accepted, f"{result.accepted} were accepted, {succeeded} succeeded"
    return result


def _syncs(connections: int) -> float:
    """Return disk syncs per request."""
    with folder() as place:
        with counting_syncs(place / "tasks.db") as (server, syncs):
            loaded = load_durable(server, connections)
        return syncs[0] / loaded.accepted


def _left_there(port: int) -> int:
    with urlopen(f"http://127.0.0.1:{port}/left") as answer:
        return int(json.load(answer))


def _left_in(file: Path) -> int:
    return int(_ask(file, LEFT))


def _ask(file: Path, question: str) -> float:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        answer: float = connection.execute(question).fetchone()[0]
        return answer
