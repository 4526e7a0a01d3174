"""What is said of a call where a function was to be given."""

from collections.abc import Coroutine
from typing import Any

import pytest

from afterwards.core.already_called import called_already, function_of


async def fetch(number: int) -> None: ...


class Greeter:
    async def __call__(self, number: int) -> None: ...


class Named(Greeter):
    __name__ = "greet"

    async def enqueue(self, number: int) -> None: ...


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "None is no function. With `add(f(1))` f ran already: write `add(f, 1)`"),
        (3, "a value of type int is no function. With `add(f(1))` f ran already: write `add(f, 1)`"),
    ],
)
def test_what_a_function_has_returned_is_told_by_its_type(given: object, said: str) -> None:
    assert called_already(given, "add({}(1))", "add({}, 1)") == said


@pytest.mark.parametrize(
    ("call", "name"), [(fetch, "fetch"), (Named(), "greet"), (Named().enqueue, "greet"), (Greeter(), "f")]
)
def test_a_coroutine_is_told_by_its_function_and_closed(call: Any, name: str) -> None:
    coroutine: Coroutine[Any, Any, None] = call(1)
    said = called_already(coroutine, "add({}(1))", "add({}.call(1))", wanted="call")
    assert said == f"a coroutine is no call. `add({name}(1))` called {name} already: write `add({name}.call(1))`"
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coroutine.send(None)
    assert function_of(coroutine) is None
