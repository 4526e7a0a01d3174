"""A connection to a Celery app's broker whose waits are bounded, and which knows what the broker has accepted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, TypeVar

from afterwards.dispatch.celery.threads import Opened

T = TypeVar("T")

ANSWER_WITHIN = 3.0
"""Seconds that the broker may take for any one answer."""

BOUNDED = {
    "confirm_publish": False,  # see Confirms
    "read_timeout": ANSWER_WITHIN,
    "write_timeout": ANSWER_WITHIN,
    "socket_timeout": ANSWER_WITHIN,  # the Redis transport
    "socket_connect_timeout": ANSWER_WITHIN,
    "max_retries": 1,  # kombu's own attempts to connect, which have no end by default
    "interval_start": 0,
}
"""Transport options that bound a transport's waits. A transport ignores those of others."""


class Refused(Exception):
    """The broker has refused a message."""


class Confirms:
    """Counts the messages of a channel that RabbitMQ has confirmed.

    Kombu's ``confirm_publish`` waits for each message before the next one is sent.
    """

    def __init__(self, channel: Any) -> None:
        self._connection = channel.connection
        self._publish = channel.basic_publish
        self._sent = 0
        self._unconfirmed: set[int] = set()
        self._some_refused = False
        channel.confirm_select()
        channel.events["basic_ack"].add(self._acknowledged)
        channel.events["basic_nack"].add(self._refused)
        channel.basic_publish = self._counted

    def wait(self) -> None:
        """Return when all have been confirmed. Raises TimeoutError, and Refused once each message has its answer."""
        until = monotonic() + ANSWER_WITHIN
        while self._unconfirmed:
            left = until - monotonic()
            if left <= 0:
                raise TimeoutError("the broker did not confirm")
            before = len(self._unconfirmed)
            self._connection.drain_events(timeout=left)
            if len(self._unconfirmed) < before:  # many messages may take a slow broker longer than one
                until = monotonic() + ANSWER_WITHIN
        if self._some_refused:
            self._some_refused = False
            raise Refused("the broker refused a message: its queue may be full, or its disk")

    def _counted(self, *args: Any, **kwargs: Any) -> Any:
        self._sent += 1
        self._unconfirmed.add(self._sent)
        return self._publish(*args, **kwargs)

    def _acknowledged(self, delivery_tag: int, multiple: bool) -> None:
        # Acks come in any order; one of several covers all before it, of which some may have been confirmed already.
        covered = {tag for tag in self._unconfirmed if tag <= delivery_tag} if multiple else {delivery_tag}
        self._unconfirmed -= covered

    def _refused(self, delivery_tag: int, multiple: bool) -> None:
        self._some_refused = True
        self._acknowledged(delivery_tag, multiple)


class BrokerConnection:
    """An open connection. All methods belong to one thread, and may raise ``errors_of(app)``."""

    producer: Any

    def __init__(self, app: Any) -> None:
        self._app = app
        self.kombu = app.connection_for_write(connect_timeout=ANSWER_WITHIN, transport_options=BOUNDED)
        self.kind: str = self.kombu.transport.driver_type
        try:
            connect(self.kombu)
            self.open_channel()
        except BaseException:
            self.close()
            raise

    def open_channel(self) -> None:
        """Open a channel, which is needed anew after an error of the last one."""
        channel = self.kombu.channel()
        self.kombu.declared_entities.clear()
        self.producer = self._app.amqp.Producer(channel, auto_declare=False)
        self._confirms = Confirms(channel) if self.kind == "amqp" else None

    def wait_until_accepted(self) -> None:
        """Return when the broker has accepted all that was sent, if its transport can say so."""
        if self._confirms:
            self._confirms.wait()

    def close(self) -> None:
        """Close it without waiting for the broker, which may not answer."""
        with suppress(*errors_of(self._app)):
            if self.kind == "amqp":
                self.kombu.collect()  # for other transports it changes the time limit of all sockets of the process
            else:
                self.kombu.close()


def connect(kombu: Any) -> None:
    """Open a connection that was made with BOUNDED, in bounded time, to the first of its brokers that answers."""
    brokers = max(1, len(kombu.alt))  # none is listed if there is one
    kombu.ensure_connection(max_retries=max(1, brokers - 1), interval_start=0, timeout=brokers * ANSWER_WITHIN)


def with_connection(
    app: Any, opened: Opened, act: Callable[[BrokerConnection], T], *, try_again: Callable[[BaseException], bool]
) -> T:
    """Act with this thread's connection. One kept from before may be dead, so ``act`` may be done on a new one."""
    kept = opened.kept.get(app)
    if kept is not None:
        try:
            with _closed_on_error(app, opened):
                return act(kept)
        except errors_of(app) as error:
            if not try_again(error):
                raise
    new = opened.kept[app] = BrokerConnection(app)
    with _closed_on_error(app, opened):
        return act(new)


@contextmanager
def _closed_on_error(app: Any, opened: Opened) -> Iterator[None]:
    """Close this thread's connection if it is of no more use."""
    try:
        yield
    except BaseException:
        opened.close(app)
        raise


def errors_of(app: Any) -> tuple[type[BaseException], ...]:
    """Return the exceptions of a transport."""
    # Imported here: kombu is Celery's, and an application without Celery need not have it.
    from kombu.exceptions import OperationalError

    transport = app.connection_for_write().transport
    return Refused, OperationalError, OSError, *transport.connection_errors, *transport.channel_errors
