"""Benchmark: requests with one durable task that runs on Celery, against a handler that calls Celery's ``delay``."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from urllib.request import urlopen

from benchmarks.load import Load, load
from benchmarks.measure import Figure, apart, folder, in_turns
from benchmarks.requests import load_durable, named
from benchmarks.server import Server, served
from benchmarks.tasks import url
from servers.process import ServerProcess
from servers.rabbitmq import RabbitServer
from servers.redis import RedisServer

ROUNDS = 3
SECONDS = 2.0
CONNECTIONS = (1, 32)
PROCESSES = "2"
READY_WITHIN = 60.0


def figures() -> list[Figure]:
    return [figure for broker in (RabbitServer, RedisServer) for figure in _over(broker())]


def _over(broker: ServerProcess) -> Iterator[Figure]:
    with ExitStack() as stack:
        place = stack.enter_context(folder())
        stack.enter_context(broker)
        os.environ |= {"BENCHMARK_BROKER": broker.url, "BENCHMARK_COUNT": str(place / "count")}
        (place / "count").touch()
        ours = stack.enter_context(served("fleet", url(place / "tasks.db")))
        theirs = stack.enter_context(served("delays"))
        stack.enter_context(_working("fleet", place, ours.store))
        stack.enter_context(_working("delays", place))
        load_durable(ours, 8, seconds=0.5)
        _load_delays(theirs, place / "count", 8, seconds=0.5)
        for connections in CONNECTIONS:
            yield from _compared(broker.name, ours, theirs, place / "count", connections)


def _compared(broker: str, ours: Server, theirs: Server, count: Path, connections: int) -> Iterator[Figure]:
    us, delays = in_turns(
        ROUNDS, partial(load_durable, ours, connections), partial(_load_delays, theirs, count, connections)
    )
    what, peer = f"{broker}, {named(connections)}", "Celery's delay()"
    yield Figure(
        what=f"{what}, answers", ours=[_answers(one) for one in us], peer=peer, theirs=[_answers(one) for one in delays]
    )
    yield Figure(
        what=f"{what}, until all ran", ours=[one.rate for one in us], peer=peer, theirs=[one.rate for one in delays]
    )


def _answers(loaded: Load) -> float:
    return loaded.accepted / loaded.answered


def _load_delays(server: Server, count: Path, connections: int, seconds: float = SECONDS) -> Load:
    return apart(load, server.port, connections, seconds, partial(_left, server.port, count))


def _left(port: int, count: Path) -> int:
    with urlopen(f"http://127.0.0.1:{port}/sent") as answer:
        return int(json.load(answer)) - count.stat().st_size


@contextmanager
def _working(app: str, place: Path, store: str = "") -> Iterator[None]:
    """Run Celery workers of an application, as many processes for each."""
    command = [sys.executable, "-m", "celery", "-A", f"benchmarks.apps.{app}:celery_app", "worker"]
    options = ["-c", PROCESSES, "-n", f"{app}@benchmark", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    log = place / f"{app}.log"
    environment = os.environ | {"AFTERWARDS_URL": store}
    with (
        log.open("wb") as output,
        subprocess.Popen([*command, *options], env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            deadline = monotonic() + READY_WITHIN
            while " ready." not in log.read_text():
                assert process.poll() is None and monotonic() < deadline, log.read_text()
                sleep(0.1)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
