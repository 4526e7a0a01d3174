"""Calls of Celery tasks over a private RabbitMQ: confirmed, bounded in time, on a new connection after a restart."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import Any

import pytest
from celery import Celery
from fastapi import FastAPI
from kombu import Queue

from afterwards import Afterwards
from afterwards.core.errors import BrokerUnavailable
from afterwards.dispatch.celery.delivery import WITHIN
from servers.missing import missing
from servers.process import NotInstalled
from servers.rabbitmq import RabbitServer

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("celery-rabbitmq"), pytest.mark.afterwards(real=True)]


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitServer]:
    try:
        server = RabbitServer()
    except NotInstalled as error:
        missing(str(error))
    with server:
        yield server


@pytest.fixture
async def tasks(url: str) -> AsyncIterator[Afterwards]:
    app = FastAPI()
    tasks = Afterwards(app, url)
    async with app.router.lifespan_context(app):
        yield tasks


def a_task(rabbitmq: RabbitServer, queue: str, **arguments: Any) -> Any:
    fleet = Celery("fleet", broker=rabbitmq.url, set_as_current=False)
    fleet.conf.task_default_queue = queue
    fleet.conf.task_queues = [Queue(queue, routing_key=queue, queue_arguments=arguments)]

    @fleet.task(name="mail", shared=False)
    def mail(address: str) -> None: ...

    return mail


def waiting(mail: Any) -> int:
    with mail.app.connection_for_read() as connection:
        channel = connection.default_channel
        found: int = channel.queue_declare(mail.app.conf.task_default_queue, passive=True).message_count
        return found


async def test_a_message_that_the_broker_refuses_is_not_sent(tasks: Afterwards, rabbitmq: RabbitServer) -> None:
    mail = a_task(rabbitmq, "small", **{"x-max-length": 1, "x-overflow": "reject-publish"})
    await tasks.enqueue(mail, "first")
    with pytest.raises(BrokerUnavailable, match="the broker refused a message"):
        await tasks.enqueue(mail, "second")
    assert waiting(mail) == 1


async def test_after_a_restart_the_next_call_is_sent(tasks: Afterwards, rabbitmq: RabbitServer) -> None:
    mail = a_task(rabbitmq, "restarted")
    await tasks.enqueue(mail, "first")
    rabbitmq.restart(signal.SIGKILL)
    await tasks.enqueue(mail, "second")
    assert waiting(mail) == 2


async def test_a_broker_that_stops_answering_is_given_up(tasks: Afterwards, rabbitmq: RabbitServer) -> None:
    mail = a_task(rabbitmq, "stopped")
    await tasks.enqueue(mail, "first")
    assert rabbitmq._process
    os.killpg(rabbitmq._process.pid, signal.SIGSTOP)
    try:
        begun = monotonic()
        with pytest.raises(BrokerUnavailable):
            await tasks.enqueue(mail, "second")
        assert monotonic() - begun < WITHIN + 30  # it would wait for ever
    finally:
        os.killpg(rabbitmq._process.pid, signal.SIGCONT)
