"""Send calls of Celery tasks: confirmed where the transport can, and bounded in time whatever the broker does."""

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from afterwards.core.errors import BrokerUnavailable
from afterwards.core.text import said_by, type_name
from afterwards.dispatch.celery.calls import CeleryCall
from afterwards.dispatch.celery.connection import BrokerConnection, errors_of, with_connection
from afterwards.dispatch.celery.threads import Opened, sending

T = TypeVar("T")

WITHIN = 5.0
"""Seconds within which a broker must have accepted the calls of one request."""


async def send(calls: Sequence[CeleryCall]) -> list[Any]:
    """Send calls in this order, and return Celery's results. Raises BrokerUnavailable: those before it were sent.

    With ``task_always_eager`` the tasks run here, in a thread; their exceptions are raised if Celery raises them.
    """
    eager = any(call.app.conf.task_always_eager for call in calls)
    until = monotonic() + WITHIN
    return await _in_thread(calls[0], partial(_send_all, calls, until), within=None if eager else WITHIN)


async def revoke(call: CeleryCall) -> None:
    """Tell all Celery workers not to run a call. Raises BrokerUnavailable."""

    def tell(connection: BrokerConnection) -> None:
        call.app.control.revoke(call.id, connection=connection.kombu, channel=connection.producer.channel)
        connection.wait_until_accepted()

    await _in_thread(call, partial(_over_broker, call, tell, monotonic() + WITHIN), within=WITHIN)


async def _in_thread(call: CeleryCall, work: Callable[[Opened], T], *, within: float | None) -> T:
    """Do work in a thread with open connections. Raises BrokerUnavailable for this call if it takes too long."""
    try:
        return await sending.run(work, within=within)
    except TimeoutError as error:
        raise _unavailable(call, f"no answer within {WITHIN:.0f} s") from error


def _send_all(calls: Sequence[CeleryCall], until: float, opened: Opened) -> list[Any]:
    return [call.context.copy().run(_send_one, call, until, opened) for call in calls]


def _send_one(call: CeleryCall, until: float, opened: Opened) -> Any:
    if call.app.conf.task_always_eager:
        return call.apply_async(task_id=call.id)
    return _over_broker(call, partial(_publish, call, until), until, opened)


def _publish(call: CeleryCall, until: float, connection: BrokerConnection) -> Any:
    def publish(*args: Any, **kwargs: Any) -> Any:
        # Celery asks the result backend first, which may hang: by now the request may have been refused.
        if monotonic() >= until:
            raise TimeoutError(f"not sent within {WITHIN:.0f} s")
        return original(*args, **kwargs)

    producer = connection.producer
    original, producer.publish = producer.publish, publish
    try:
        result = call.apply_async(task_id=call.id, producer=producer, retry=False)
    finally:
        del producer.publish
    connection.wait_until_accepted()
    return result


def _over_broker(call: CeleryCall, act: Callable[[BrokerConnection], T], until: float, opened: Opened) -> T:
    """Act with this thread's connection. Raises BrokerUnavailable."""

    def try_again(error: BaseException) -> bool:
        return not _timed_out(error) and monotonic() < until

    # On the way to the broker, Celery may ask the result backend.
    errors = (*errors_of(call.app), *getattr(call.app.backend, "connection_errors", ()))
    try:
        return with_connection(call.app, opened, act, try_again=try_again)
    except errors as error:
        raise _unavailable(call, _why(error.__cause__ or error)) from error


def _timed_out(error: BaseException) -> bool:
    """Return whether the broker may have accepted what it did not answer: another try could send it twice."""
    return "Timeout" in type(error.__cause__ or error).__name__ or isinstance(error, TimeoutError)


def _why(error: BaseException) -> str:
    said = said_by(error)
    return f"{type_name(error)}: {said}" if said else type_name(error)


def _unavailable(call: CeleryCall, reason: str) -> BrokerUnavailable:
    return BrokerUnavailable(call.name, call.app.connection_for_write().as_uri(), reason)
