"""The brokers, and a fleet on each that the tests share that stop nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.harness import Fleet
from servers.missing import missing
from servers.process import NotInstalled, ServerProcess
from servers.rabbitmq import RabbitServer
from servers.redis import RedisServer

BROKERS: dict[str, Callable[[], ServerProcess]] = {"amqp": RabbitServer, "redis": RedisServer}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test over both brokers, those over one broker in one process of tests."""
    if "broker" in metafunc.fixturenames:
        kinds = [pytest.param(kind, marks=pytest.mark.xdist_group(f"fleet-{kind}")) for kind in BROKERS]
        metafunc.parametrize("broker", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A broker that no test kills."""
    with private_broker(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def shared_fleet(broker: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet with a web process and one prefork worker of two processes."""
    with Fleet(broker, tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.worker("--concurrency", "2")
        fleet.web()
        yield fleet


@pytest.fixture
def make_fleet(broker: ServerProcess, tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Return a function that makes a fleet for one test, of which nothing is started yet."""
    made: list[Fleet] = []

    def make(**settings: Any) -> Fleet:
        made.append(Fleet(broker, tmp_path, **settings))
        return made[-1]

    yield make
    for fleet in made:
        fleet.__exit__(None, None, None)


def private_broker(kind: str) -> ServerProcess:
    """Return a server, not started. Skips the test if it is not installed."""
    try:
        return BROKERS[kind]()
    except NotInstalled as error:
        missing(str(error))
