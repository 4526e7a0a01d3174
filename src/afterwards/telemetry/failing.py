"""Keep the errors of the user's tracing and metrics away from tasks."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from afterwards.core.text import type_name
from afterwards.telemetry.writing import described, once


@contextmanager
def recording() -> Iterator[None]:
    """Log the error of a sampler, processor, exporter or reader, once for each type, and go on."""
    try:
        yield
    except BaseException as error:  # the user's code may raise anything, and nothing here can be cancelled
        not_traced(error)


def not_traced(error: BaseException) -> None:
    once(f"trace {type_name(error)}", logging.WARNING, f"a trace could not be recorded: {described(error)}")
