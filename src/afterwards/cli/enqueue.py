"""``afterwards enqueue``: store a call of a task function."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from afterwards.cli import output, times
from afterwards.cli.errors import CommandError, UsageError
from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.store import run, with_application
from afterwards.client.client import Client
from afterwards.core.errors import AfterwardsError, UnknownFunction, Unreadable
from afterwards.core.problems import unfit
from afterwards.core.record import TaskRecord
from afterwards.core.task import Task
from afterwards.engine import Engine
from afterwards.tasks.function import TaskFunction
from afterwards.tasks.registry import registry

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the task function.")]
Args = Annotated[
    str,
    typer.Option("--args", "-a", metavar="JSON", help='Its arguments: {"user": 7}, or [7] in the order of parameters.'),
]
Delay = Annotated[str | None, typer.Option("--delay", metavar="TIME", help="Start so much later: 90, 30m, 1h, 7d.")]
Queue = Annotated[str | None, typer.Option("--queue", "-q", metavar="QUEUE", help="Another queue than usual.")]
Priority = Annotated[
    int | None, typer.Option("--priority", metavar="NUMBER", help="Another priority than usual, -100 to 100.")
]

ORIGIN = "afterwards enqueue"
"""Who asked for the task, as the record shows it."""

Function = TaskFunction[Any, Any, Any]


def enqueue(
    name: Name,
    args: Args = "{}",
    delay: Delay = None,
    queue: Queue = None,
    priority: Priority = None,
    as_json: AsJson = False,
    url: Url = None,
    app: App = None,
) -> None:
    """Store a call of a task function, with its arguments as JSON.

    For example: afterwards enqueue send_welcome --args '{"email": "ada@example.org"}'.

    The application is loaded, and its function checks the arguments. The task is durable when the command ends.
    """
    store, client = with_application(url, app)
    options: dict[str, Any] = {
        "delay": None if delay is None else times.span(delay, "--delay"),
        "queue": queue,
        "priority": priority,
    }
    try:
        function = _function(name)
        called = function.options(**{name: value for name, value in options.items() if value is not None})
        arguments, keywords = _call(function, args)
    except AfterwardsError as error:
        raise UsageError(str(error)) from error

    async def stored(engine: Engine) -> Task:
        try:
            return await _stored(called, arguments, keywords, client)
        finally:
            await client.close()

    record = TaskRecord.of(run(store, stored, create=True))
    if as_json:
        output.json_line(record.as_json())
    else:
        output.line(record.id)
        output.flush()
        output.say(f"{record.name} is {record.state} in queue {record.queue}. `afterwards show {record.id}` follows it")


def _function(name: str) -> Function:
    try:
        return registry.get(name)
    except UnknownFunction:
        names = sorted(one.name for one in registry)
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        known = f"There are {', '.join(names)}" if names else "The application has none"
        raise UsageError(f"no task function is named {name!r}; {hint}{known}") from None


def _call(function: Function, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call in the types of the function's parameters. Raises UsageError."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--args is not JSON ({error}): give an object of parameters, as '{{\"user\": 7}}'") from error
    codec = function.codec
    if codec.files:
        raise UsageError(f"{function.name} takes an uploaded file ({', '.join(codec.files)}): only a request has one")
    if isinstance(given, list):
        if len(given) > len(codec.parameters):
            raise UsageError(f"--args has {len(given)} values, and {function.name} takes {_parameters(function)}")
        given = dict(zip(codec.parameters, given, strict=False))
    if not isinstance(given, Mapping):
        raise UsageError(f"--args is {type(given).__name__}: give an object of parameters, or a list of values")
    try:
        return codec.spread(codec.load(json.dumps(given)))
    except Unreadable as error:
        raise UsageError(f"--args for {function.name}: {_fault(error.__cause__, function)}") from None


def _fault(cause: BaseException | None, function: Function) -> str:
    """Return what is wrong with arguments. It shows no value: some are secret."""
    if isinstance(cause, ValidationError):
        fault = cause.errors(include_url=False, include_input=False)[0]
        place = str(fault["loc"][0]) if len(fault["loc"]) == 1 else ""
        if place and fault["type"] == "missing":
            return f'parameter "{place}" is missing; it takes {_parameters(function)}'
        if place and fault["type"] == "extra_forbidden":
            return f'there is no parameter "{place}"; it takes {_parameters(function)}'
    return unfit(cause)


def _parameters(function: Function) -> str:
    names: Sequence[str] = function.codec.parameters
    return ", ".join(names) if names else "none"


async def _stored(function: Function, arguments: tuple[Any, ...], keywords: dict[str, Any], client: Client) -> Task:
    id = client.new_id()
    try:
        written = function.calls.write(arguments, keywords, id, client)
        new = function.calls.new_task(client, written, id=id, origin=ORIGIN)
    except TypeError as error:  # also UnstorableArgument
        raise CommandError(f"{function.name}: {error}") from error
    [stored] = await client.enqueue_now([new])
    return stored
