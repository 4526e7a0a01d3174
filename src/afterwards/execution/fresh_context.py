"""The context in which attempts begin: a copy of the worker's, without changes by other attempts."""

import contextvars
from typing import Any

from afterwards import telemetry
from afterwards.execution.copying import copy


class FreshContexts:
    """Makes copies of the context in which it was created. Mutable values are copied for each attempt."""

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self._mutable: list[tuple[contextvars.ContextVar[Any], Any]] = []
        for variable, value in self._context.items():
            if not variable.name.startswith(OURS) and (kept := _copied(value)) is not value:
                self._mutable.append((variable, kept))

    def fresh(self) -> contextvars.Context:
        """Return a context for one attempt."""
        context = self._context.copy()
        for variable, kept in self._mutable:
            context.run(variable.set, _copied(kept))
        return context


OURS = "afterwards_"
"""Prefix of the names of our own variables: their values are meant to be shared."""


def _copied(value: Any) -> Any:
    """Return a deep copy of data; return an immutable value, or one that is more than data, itself."""
    try:
        return copy(value, {})
    except BaseException as error:  # the user's code
        telemetry.not_copied(error)
        return value
