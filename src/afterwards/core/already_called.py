"""Explain the mistake of passing a call instead of a function, as ``add_task(f(1))`` for ``add_task(f, 1)``."""

from collections.abc import Coroutine
from typing import Any


def called_already(given: object, wrong: str, right: str, *, wanted: str = "function") -> str:
    """Return an error message that says what was passed, and what to write instead.

    ``{}`` in ``wrong`` and ``right`` stands for the function. A coroutine is closed, because nobody will await it.
    """
    if not isinstance(given, Coroutine):
        found = "None" if given is None else f"a value of type {type(given).__name__}"
        return f"{found} is no {wanted}. With `{wrong.format('f')}` f ran already: write `{right.format('f')}`"
    called = function_of(given)
    name = getattr(given if called is None else called, "__name__", "f")
    given.close()
    return f"a coroutine is no {wanted}. `{wrong.format(name)}` called {name} already: write `{right.format(name)}`"


def function_of(coroutine: Coroutine[Any, Any, Any]) -> object:
    """Return the object, such as a task function, whose method made an unstarted coroutine; None for others."""
    frame = getattr(coroutine, "cr_frame", None)
    return frame.f_locals.get("self") if frame and getattr(coroutine, "__name__", "") in _MAKERS else None


_MAKERS = ("__call__", "enqueue")
"""The methods by which a task function makes one."""
