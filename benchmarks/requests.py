"""Benchmark: requests per second of a real server, one task each, until all accepted tasks have finished."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from urllib.request import urlopen

from benchmarks.load import Load, load
from benchmarks.measure import Aim, Figure, apart, folder, in_turns
from benchmarks.server import Server, can_count_syncs, counting_syncs, served
from benchmarks.stores import LEASED_AS_STORED, SUCCEEDED, ask, left
from benchmarks.tasks import url

ROUNDS = 5
SECONDS = 2.0
CONNECTIONS = (1, 32, 64)


def figures() -> list[Figure]:
    return [figure for connections in CONNECTIONS for figure in _figures(connections)]


def _figures(connections: int) -> Iterator[Figure]:
    with folder() as place:
        yield from compared(url(place / "tasks.db"), connections, Aim(0.6) if connections > 1 else None)
    if can_count_syncs():
        yield Figure(what=f"{named(connections)}, syncs per 100 requests", ours=[_syncs(connections) * 100], unit="")


def compared(store: str, connections: int, aim: Aim | None) -> Iterator[Figure]:
    """Compare the durable application, whose tasks are in this store, with FastAPI's plain one."""
    what = named(connections)
    with _both(store) as (durable, bare):
        loads = [partial(load_durable, durable, connections), partial(load_bare, bare, connections)]
        ours, plain = ([one.rate for one in came] for came in in_turns(ROUNDS, *loads))
        leased_as_stored = ask(store, LEASED_AS_STORED)
    yield Figure(what=what, ours=ours, peer="FastAPI's BackgroundTasks", theirs=plain, aim=aim)
    yield Figure(what=f"{what}, tasks of 100 that are leased as they are stored", ours=[leased_as_stored], unit="")


def named(connections: int) -> str:
    return f"{connections} connections" if connections > 1 else "1 connection"


@contextmanager
def _both(store: str) -> Iterator[tuple[Server, Server]]:
    """Serve both applications, warmed up."""
    with ExitStack() as stack:
        durable = stack.enter_context(served("durable", store))
        bare = stack.enter_context(served("bare"))
        load_durable(durable, 8, seconds=0.5)
        load_bare(bare, 8, seconds=0.5)
        yield durable, bare


def load_bare(server: Server, connections: int, seconds: float = SECONDS) -> Load:
    return apart(load, server.port, connections, seconds, partial(_left_there, server.port))


def load_durable(server: Server, connections: int, seconds: float = SECONDS) -> Load:
    """Load the durable server. Raises AssertionError unless as many tasks have succeeded as were accepted."""
    before = ask(server.store, SUCCEEDED)
    result = apart(load, server.port, connections, seconds, partial(left, server.store))
    succeeded = ask(server.store, SUCCEEDED) - before
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
