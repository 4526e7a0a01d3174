"""Log lines about the fleet of other software that runs tasks, in its processes and in those that send to it."""

import logging
from functools import partial

from afterwards.telemetry import writing
from afterwards.telemetry.writing import WORKER, described

now_and_then = partial(writing.now_and_then, logger=WORKER)
once = partial(writing.once, logger=WORKER)
write = partial(writing.write, logger=WORKER)

FORGED_EVERY = 60.0
"""The least seconds between two lines about messages that no dispatcher wrote."""


def no_queue(queue: str, reason: str) -> None:
    now_and_then(
        f"no queue {queue}",
        FORGED_EVERY,
        logging.ERROR,
        f'afterwards: no task can be sent to the queue "{queue}": {reason}. Its tasks stay stored, and are sent again '
        "later",
        extra={"queue": queue},
    )


def forged(shown: str) -> None:
    now_and_then(
        "forged message",
        FORGED_EVERY,
        logging.WARNING,
        f"afterwards: a message for afterwards.run names no attempt of a task, and was ignored: {shown}",
    )


def cannot_serve(error: BaseException) -> None:
    write(
        logging.CRITICAL,
        f"afterwards: this process of the fleet cannot run tasks, because the application did not start: "
        f"{described(error)}. The Celery worker ends; messages that it got are sent again later",
        exc_info=error,
    )


def stopped_serving(error: BaseException) -> None:
    write(
        logging.CRITICAL,
        f"afterwards: this process of the fleet runs no more tasks, because the application ended: {described(error)}. "
        "The Celery worker ends",
        exc_info=error,
    )


def slow_end(seconds: float) -> None:
    write(
        logging.WARNING,
        f"afterwards: the application's shutdown took more than {seconds:g} s, and this process of the fleet ended "
        "before it was over",
    )


def soft_time_limit() -> None:
    once(
        "soft time limit",
        logging.WARNING,
        "afterwards: Celery's soft time limit does not stop tasks of afterwards: give the task function a timeout",
    )
