"""What a connection to a broker waits for, and what closing it leaves alone."""

import socket
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from afterwards.dispatch.celery.connection import BrokerConnection, Confirms, Refused
from celery_calls.broker import an_address_where_nobody_listens, an_application


class Broker:
    """A channel of RabbitMQ's client, and a broker that answers as the test says."""

    def __init__(self, *answers: tuple[str, int, bool]) -> None:
        self.connection = self
        self.events: dict[str, set[Callable[[int, bool], None]]] = defaultdict(set)
        self._answers = [*answers]

    def confirm_select(self) -> None: ...

    def basic_publish(self, message: str) -> None: ...

    def drain_events(self, timeout: float) -> None:
        if not self._answers:
            raise TimeoutError("nothing more comes")
        event, tag, multiple = self._answers.pop(0)
        for follow in self.events[event]:
            follow(tag, multiple)


@pytest.mark.parametrize(
    "order",
    [
        [(1, False), (2, False), (3, False)],
        [(3, True)],
        [(3, False), (2, True)],
        [(2, False), (3, False), (1, False)],
        [(2, True), (3, False)],
    ],
    ids=str,
)
def test_acks_may_come_in_any_order(order: list[tuple[int, bool]]) -> None:
    channel = Broker(*(("basic_ack", *ack) for ack in order))
    confirms = Confirms(channel)
    for message in "abc":
        channel.basic_publish(message)
    confirms.wait()
    confirms.wait()  # nothing is left to wait for


def test_a_message_without_an_ack_is_not_accepted() -> None:
    channel = Broker(("basic_ack", 2, False), ("basic_ack", 3, False))
    confirms = Confirms(channel)
    for message in "abc":
        channel.basic_publish(message)
    with pytest.raises(TimeoutError):
        confirms.wait()


def test_a_message_that_is_refused_is_an_error() -> None:
    channel = Broker(("basic_nack", 1, False))
    confirms = Confirms(channel)
    channel.basic_publish("a")
    with pytest.raises(Refused):
        confirms.wait()


@pytest.mark.parametrize("transport", ["memory", "redis", "amqp"])
def test_closing_a_connection_does_not_touch_the_sockets_of_others(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[Any] = []
    monkeypatch.setattr(socket, "setdefaulttimeout", limits.append)
    if transport == "memory":
        BrokerConnection(an_application()).close()
    else:
        app: Celery = an_application(f"{transport}://{an_address_where_nobody_listens()}")
        with pytest.raises(OperationalError):
            BrokerConnection(app)
    assert limits == []
