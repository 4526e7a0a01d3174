"""Recognise a call where a function was to be given, as ``add_task(f(1))`` instead of ``add_task(f, 1)``."""

from collections.abc import Coroutine
from typing import Any


def called_already(given: object, wrong: str, right: str, *, wanted: str = "function") -> str:
    """Say what was found instead of what is wanted, and what to write; ``{}`` in the texts stands for the function.

    A coroutine is closed, for nobody will await it.
    """
    if not isinstance(given, Coroutine):
        found = "None" if given is None else f"a value of type {type(given).__name__}"
        return f"{found} is no {wanted}. With `{wrong.format('f')}` f ran already: write `{right.format('f')}`"
    called = function_of(given)
    name = getattr(given if called is None else called, "__name__", "f")
    given.close()
    return f"a coroutine is no {wanted}. `{wrong.format(name)}` called {name} already: write `{right.format(name)}`"


def function_of(coroutine: Coroutine[Any, Any, Any]) -> object:
    """The object, as a task function, by whose ``__call__`` a coroutine was made that has not begun; else None."""
    frame = getattr(coroutine, "cr_frame", None)
    return frame.f_locals.get("self") if frame and getattr(coroutine, "__name__", "") == "__call__" else None
