"""A situation: a small application, and what a client does with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from differential.client import Client
from differential.kit import Kit

Step = Callable[[Client], None]
Build = Callable[[Kit], ASGIApp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """An application of our own for one thing that FastAPI's or Starlette's documentation, tests or issues show."""

    name: str
    build: Build
    steps: Sequence[Step]


def situation(*steps: Step) -> Callable[[Build], Situation]:
    """Make the function that builds an application a situation, named as the function is."""

    def decorate(build: Build) -> Situation:
        return Situation(name=build.__name__, build=build, steps=steps)

    return decorate


def get(path: str, **options: Any) -> Step:
    """Send a GET request and read the whole answer."""
    return lambda client: client.ask("GET", path, **options)


def post(path: str, **options: Any) -> Step:
    """Send a POST request and read the whole answer."""
    return lambda client: client.ask("POST", path, **options)


def wait_for(*events: str) -> Step:
    """Wait until all of the events have been recorded: two requests in a row do not wait for each other's tasks."""
    return lambda client: client.wait_for(*events)


def reconnect(client: Client) -> None:
    """Go on with a new connection."""
    client.reconnect()


def open_gate(name: str) -> Step:
    """Let the server go on."""
    return lambda client: client.open_gate(name)
