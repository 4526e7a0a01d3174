"""``@task``: what it makes, and what it refuses."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial, wraps
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from afterwards import AfterwardsError, Retry, TaskFunction, task
from afterwards.core.errors import InvalidOption, InvalidTaskFunction
from face.diary import said as the_diary


@task
async def greet(name: str, *, greeting: str = "hello") -> str:
    """Greet somebody."""
    return f"{greeting} {name}"


@task(name="mail.greet:2", queue="mail", priority=5, retries=Retry(3, wait=0), timeout=60)
def greet_by_mail(name: str) -> str:
    return f"dear {name}"


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        the_diary.append("called")
        return function(*args, **kwargs)

    return call


@task
@logged
def wrapped(name: str) -> str:
    return name


def test_a_direct_call_is_a_plain_call() -> None:
    assert asyncio.run(greet("Ada", greeting="good morning")) == "good morning Ada"
    assert greet_by_mail("Ada") == "dear Ada"


def test_a_direct_call_passes_anything() -> None:
    assert asyncio.run(greet(5, greeting=object)) == "<class 'object'> 5"  # type: ignore[arg-type]


def test_it_looks_like_the_function() -> None:
    assert (greet.__name__, greet.__doc__, greet.__module__) == ("greet", "Greet somebody.", __name__)
    assert str(inspect.signature(greet)) == "(name: str, *, greeting: str = 'hello') -> str"
    assert inspect.unwrap(greet).__code__.co_filename == __file__
    assert isinstance(greet, TaskFunction)
    assert "greet" in repr(greet)


def test_its_name_is_the_functions_unless_it_is_given() -> None:
    assert greet.name == "greet"
    assert greet_by_mail.name == "mail.greet:2"


def test_its_options_are_those_given() -> None:
    settings = greet_by_mail.settings
    assert (settings.queue, settings.priority, settings.retries.times) == ("mail", 5, 3)
    assert settings.timeout is not None


def test_a_decorated_function_can_be_a_task_function(said: list[str]) -> None:
    assert wrapped("Ada") == "Ada"
    assert said == ["called"]
    assert wrapped.name == "wrapped"


def test_it_can_be_an_endpoint_and_a_dependency() -> None:
    app = FastAPI()
    app.get("/greet")(greet)

    @app.get("/mail")
    def handler(mail: str = Depends(greet_by_mail)) -> str:
        return mail

    http = TestClient(app)
    assert http.get("/greet?name=Ada&greeting=hi").json() == "hi Ada"
    assert http.get("/mail?name=Ada").json() == "dear Ada"


def test_a_lambda_is_refused() -> None:
    refused(lambda: None, "a lambda has no name", "write a `def`")


def test_a_closure_is_refused_and_what_it_closes_over_is_named() -> None:
    secret, other = 1, 2

    async def closure() -> int:
        return secret + other

    refused(closure, "closure over other, secret", "pass what it needs as arguments or with Depends")


def test_a_function_within_a_function_is_fine_as_long_as_it_is_no_closure() -> None:
    @task
    async def local_but_no_closure(name: str) -> str:
        return name

    assert asyncio.run(local_but_no_closure("Ada")) == "Ada"


def test_generators_are_refused() -> None:
    def generates() -> Iterator[int]:
        yield 1

    async def generates_asynchronously() -> AsyncIterator[int]:
        yield 1

    for function in (generates, generates_asynchronously):
        refused(function, "calling a generator function does not run its body")


class Mailer:
    def send(self, name: str) -> None: ...

    async def send_later(self, name: str) -> None: ...

    @classmethod
    def make(cls, name: str) -> None: ...

    @staticmethod
    def stamp(name: str) -> None: ...


@pytest.mark.parametrize(
    "method",
    [Mailer().send, Mailer.send, Mailer.send_later, Mailer.make, Mailer.__dict__["make"], Mailer.__dict__["stamp"]],
)
def test_methods_are_refused(method: Any) -> None:
    refused(method, "method", "write a function at module level")


def test_a_method_decorated_in_its_class_is_refused() -> None:
    with pytest.raises(InvalidTaskFunction, match="method"):

        class Decorated:
            @task
            async def decorated_method(self, name: str) -> None: ...


def test_a_static_method_may_hold_a_task_function() -> None:
    class Mails:
        @staticmethod
        @task
        async def send_static(name: str) -> str:
            return name

    assert asyncio.run(Mails.send_static("Ada")) == "Ada"


class Callable_:
    def __call__(self) -> None: ...


@pytest.mark.parametrize("thing", [Callable_(), Callable_, partial(print, "x"), print, 5, "name", greet])
def test_what_is_no_function_is_refused(thing: Any) -> None:
    refused(thing, "decorate a `def` or `async def`")


@pytest.mark.parametrize("name", ["", "two words", "x" * 101, "naïve"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidOption, match="task name"):

        @task(name=name)
        async def misnamed() -> None: ...


def test_on_failure_is_a_function() -> None:
    with pytest.raises(InvalidOption, match="on_failure='tell_support'"):
        task(on_failure="tell_support")  # type: ignore[arg-type]


def test_an_option_that_does_not_exist_is_refused_before_there_is_a_function() -> None:
    with pytest.raises(InvalidOption, match="retry"):
        task(retry=3)  # type: ignore[call-overload]


def test_a_signature_that_cannot_be_stored_is_refused_at_once() -> None:
    class Opaque:
        pass

    with pytest.raises(TypeError, match=r"takes_opaque.*thing"):

        @task
        async def takes_opaque(thing: Opaque) -> None: ...


def refused(thing: Any, *said: str) -> None:
    with pytest.raises(InvalidTaskFunction) as error:
        task(thing)
    for text in said:
        assert text in str(error.value)
    assert isinstance(error.value, AfterwardsError)
