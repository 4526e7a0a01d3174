"""Ask the Celery workers that live now whether they know our Celery task."""

from collections.abc import Collection, Mapping
from typing import Any

from afterwards.core.text import said_by, type_name
from afterwards.dispatch.celery.connection import ANSWER_WITHIN, BOUNDED, connect
from afterwards.dispatch.celery.message import NAME
from afterwards.dispatch.celery.threads import Opened, asking

ANSWERS_WITHIN = 2.0
"""Seconds that the workers have for their answers: they do not say how many they are."""

WITHIN = 10.0
"""Seconds within which the broker must have brought them."""

_NO_ANSWER = "Celery's broker {} does not answer ({}), so it is unknown which Celery workers live"

# Without a variable Celery takes `app` of the module, which is FastAPI's.
_NO_WORKER = (
    "no Celery worker answers: start one with `celery -A main:celery_app worker`, if the Celery app is celery_app "
    "in main.py"
)


async def troubles(app: Any) -> list[str]:
    """Return why no Celery worker would run our tasks now, in words. Bounded in time, whatever the broker does."""
    broker = app.connection_for_read().as_uri()  # without its password

    def ask(opened: Opened) -> Mapping[str, Collection[str]] | None:
        with app.connection_for_read(connect_timeout=ANSWER_WITHIN, transport_options=BOUNDED) as connection:
            connect(connection)
            found: Mapping[str, Collection[str]] | None = app.control.inspect(
                timeout=ANSWERS_WITHIN, connection=connection
            ).registered()
            return found

    try:
        workers = await asking.run(ask, within=WITHIN)
    except TimeoutError:
        return [_NO_ANSWER.format(broker, f"nothing came within {WITHIN:.0f} s")]
    except Exception as error:  # a transport may raise anything, and each has its own exceptions
        return [_NO_ANSWER.format(broker, f"{type_name(error)}: {said_by(error)}")]
    return [*_of_workers(workers or {})]


def _of_workers(workers: Mapping[str, Collection[str]]) -> Collection[str]:
    if not workers:
        return [_NO_WORKER]
    if any(NAME in registered for registered in workers.values()):
        return ()
    return [
        f"no Celery worker knows {NAME!r} ({', '.join(sorted(workers))}): none of them has imported the application, "
        "whose module must be imported by `celery -A`, or be one of Celery's `include`"
    ]
