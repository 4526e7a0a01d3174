"""A Celery application on a broker in the memory of the test's process, and what lies in its queues."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from celery import Celery


def an_application(broker: str = "memory://", backend: Any = None, **settings: Any) -> Celery:
    """A Celery application whose queues no other test uses."""
    app = Celery(f"fleet-{uuid4().hex[:6]}", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(task_default_queue=uuid4().hex, **settings)
    return app


def sent(app: Celery, queue: str | None = None) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """The messages of a queue, in order: name, arguments and keyword arguments. They are taken from it."""
    return [(headers["task"], body[0], body[1]) for headers, body in messages(app, queue)]


def messages(app: Celery, queue: str | None = None) -> list[tuple[dict[str, Any], Any]]:
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        channel.queue_declare(queue=queue or app.conf.task_default_queue)
        found = []
        while (message := channel.basic_get(queue or app.conf.task_default_queue, no_ack=True)) is not None:
            got = channel.message_to_python(message) if not hasattr(message, "payload") else message
            found.append((got.headers, got.payload))
        return found


@contextmanager
def one_that_hangs() -> Iterator[str]:
    """The address of a broker that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def an_address_where_nobody_listens() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"
