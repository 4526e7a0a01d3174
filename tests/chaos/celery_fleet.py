"""The Celery fleet of an application that is troubled: its Celery app, its workers, and its broker."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from random import Random

from celery import Celery
from kombu import Connection, Queue

from afterwards.celery import CeleryDispatch
from chaos.server import Program
from servers.process import ServerProcess
from servers.rabbitmq import RabbitServer
from servers.redis import RedisServer

QUEUE = "default"
AGAIN = 2.0  # seconds until a message that is lost is sent again

BROKERS = {"celery+amqp": RabbitServer, "celery+redis": RedisServer}

_numbers = count()


def a_fleet() -> tuple[Celery | None, CeleryDispatch | None]:
    """Return the Celery app of this process, and its dispatch, if the plan has a fleet."""
    broker = os.environ.get("CHAOS_BROKER")
    if broker is None:
        return None, None
    app = Celery("chaos", broker=broker)
    app.conf.update(
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"max_retries": 3, "interval_start": 0, "interval_max": 1},
    )
    return app, CeleryDispatch(app, again_after=AGAIN)


@contextmanager
def a_broker(kind: str | None) -> Iterator[ServerProcess | None]:
    """Run a private broker, if the plan has a fleet."""
    if kind is None:
        yield None
    else:
        with BROKERS[kind]() as broker:
            yield broker


class CeleryWorker(Program):
    """`celery worker` with a prefork pool of two processes."""

    def __init__(self, app: str, *, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        number = next(_numbers)
        module = app.partition(":")[0]
        name = ["-A", f"{module}:celery_app", "worker", "-n", f"worker-{number}@chaos", "--concurrency", "2"]
        quiet = ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
        super().__init__(["celery", *name, *quiet], folder=folder, log=f"celery-{number}.log", environment=environment)

    def children(self) -> list[int]:
        """Return the processes of the pool."""
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
        pairs = [line.split() for line in listed.stdout.splitlines()]
        return [int(pid) for pid, parent in pairs if int(parent) == self.pid]

    def kill_one(self, random: Random) -> None:
        """Kill a process of the pool, which Celery starts again, or the whole worker."""
        children = self.children()
        if children and random.random() < 0.6:
            os.kill(random.choice(children), signal.SIGKILL)
        else:
            self.kill()


def purge(broker: ServerProcess) -> None:
    """Delete the messages that wait."""
    with Connection(broker.url, connect_timeout=10) as connection:
        Queue(QUEUE, routing_key=QUEUE)(connection.channel()).purge()


def double(broker: ServerProcess, ids: Sequence[str]) -> None:
    """Send messages for these tasks that no dispatcher has sent: for attempts that began, run, ended or never will."""
    body = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    with Connection(broker.url, connect_timeout=10) as connection, connection.Producer(serializer="json") as producer:
        queue = Queue(QUEUE, routing_key=QUEUE)
        for id in ids:
            for attempt in (1, 2):
                headers = {"lang": "py", "task": "afterwards.run", "id": f"{id}-{attempt}", "ignore_result": True}
                arguments = ([id, attempt], {}, body)
                producer.publish(arguments, exchange="", routing_key=QUEUE, headers=headers, declare=[queue])
