"""Sends dispatches from a thread of its own: Celery's clients block, and a broker may hang."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any
from uuid import uuid4

from celery import Celery

from afterwards.core.text import text_of
from afterwards.core.urls import without_passwords
from afterwards.dispatch.celery.connection import (
    ANSWER_WITHIN,
    BrokerConnection,
    Refused,
    errors_of,
    with_connection,
)
from afterwards.dispatch.celery.message import NAME, arguments_of
from afterwards.dispatch.celery.priority import priority_of
from afterwards.dispatch.celery.threads import Opened, Threads
from afterwards.dispatch.fleet import NotSent
from afterwards.engine import Dispatch
from afterwards.telemetry import fleet

LONGEST_SEND = 4 * ANSWER_WITHIN
"""Seconds that a caller waits: enough to find that a connection is dead, and to send on a new one."""


class Sender:
    """Sends to the broker of one Celery app. Any event loop may call it. It has a thread while there is work."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._thread = Threads(most=1)  # which keeps the order

    async def send(self, dispatches: Sequence[Dispatch]) -> None:
        """Return when the broker has accepted all. Raises NotSent with all of them: some may have arrived."""
        try:
            await self._thread.run(partial(self._send, dispatches), within=LONGEST_SEND)
        except errors_of(self._app) as error:
            reason = without_passwords(text_of(error)) or f"the broker has not answered for {LONGEST_SEND:g} s"
            raise NotSent(dispatches, reason) from error

    def _send(self, dispatches: Sequence[Dispatch], opened: Opened) -> None:
        # A message that is sent twice does nothing, so the second try may follow any error.
        send = partial(_send_all, self._app, dispatches)
        with_connection(self._app, opened, send, try_again=lambda error: True)


def _send_all(app: Celery, dispatches: Sequence[Dispatch], connection: BrokerConnection) -> None:
    """Send all, in this order, and return when the broker has accepted them.

    The messages of a queue that Celery's settings do not allow, that is full, or that the broker has with other
    settings, are left out, and an error is logged: those of other queues must not wait for it.
    """
    # A server of Redis refuses every command for the same reason, as when its memory is full.
    errors_of_queues = connection.kombu.channel_errors if connection.kind == "amqp" else ()
    for name, some in groupby(sorted(dispatches, key=attrgetter("queue")), key=attrgetter("queue")):
        try:
            queue = app.amqp.queues[name]
        except KeyError:
            fleet.no_queue(name, "Celery's setting task_queues does not have it")
            continue
        try:
            _send_to(app, queue, [*some], connection)
        except Refused as error:
            fleet.no_queue(name, text_of(error))
        except errors_of_queues as error:
            fleet.no_queue(name, text_of(error))
            connection.open_channel()


def _send_to(app: Celery, queue: Any, dispatches: Sequence[Dispatch], connection: BrokerConnection) -> None:
    for dispatch in dispatches:
        priority = priority_of(dispatch.priority, connection.kind, queue.queue_arguments or {})
        # Not ``send_task``: with ``task_always_eager``, which some set for their tests, that warns at each call.
        message = app.amqp.create_task_message(str(uuid4()), NAME, arguments_of(dispatch.lease), {}, ignore_result=True)
        app.amqp.send_task_message(
            connection.producer, NAME, message, queue=queue, priority=priority, serializer="json", retry=False
        )
    connection.wait_until_accepted()
