"""Keys made of a call's arguments, for ``unique``, ``idempotency_key`` and ``concurrency_key``."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from string import Formatter
from typing import Any

from afterwards.core.errors import InvalidKey, InvalidOption, RefusedKey, RefusedValue
from afterwards.core.names import NAME
from afterwards.core.text import shown


@dataclass(frozen=True, slots=True)
class Literal:
    """A key given as text by one call."""

    text: str


@dataclass(frozen=True, slots=True)
class Template:
    """A format string: ``{parameter}`` stands for an argument, ``{order.id}`` for an attribute of one."""

    text: str


@dataclass(frozen=True, slots=True)
class Computed:
    """A function of the call's arguments that returns the key."""

    function: Callable[..., str]


@dataclass(frozen=True, slots=True)
class AllArguments:
    """A digest of all arguments as they are stored."""


Key = Literal | Template | Computed | AllArguments


@dataclass(frozen=True, slots=True)
class Bound:
    """The arguments of one call in three forms: as given, by parameter with defaults, and as JSON."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    values: Mapping[str, Any]
    stored: str


def declared(option: str, value: object) -> Key | None:
    """Return the key that ``@task(...)`` declares. True means all arguments. Raises InvalidOption."""
    if isinstance(value, str) and value:
        return Template(value)
    return _common(option, value, "a template such as 'user-{user_id}'")


def given(option: str, value: object) -> Key | None:
    """Return the key that one call gives. Text may be a user's input: it is no template. Raises InvalidOption."""
    if isinstance(value, str) and value:
        return Literal(value)
    return _common(option, value, "the key as text")


def check_parameters(task: str, option: str, key: Key | None, parameters: Collection[str]) -> None:
    """Raise InvalidOption if a template names an unknown parameter."""
    if not isinstance(key, Template):
        return
    try:
        names = [name for _, name, _, _ in Formatter().parse(key.text) if name is not None]
    except ValueError as error:
        raise InvalidOption(f'task "{task}", {option}={key.text!r} is not a valid template: {error}') from error
    for name in names:
        parameter = name.partition(".")[0].partition("[")[0]
        if parameter not in parameters:
            known = ", ".join(parameters) or "none"
            raise InvalidOption(
                f'task "{task}", {option}={key.text!r}: it has no argument "{parameter}"; its arguments: {known}'
            )


def key_of(task: str, option: str, key: Key, call: Bound) -> str:
    """Return the key of a call. Raises InvalidKey if its function or template fails, or returns no text."""
    match key:
        case Literal(text):
            return as_key(text)
        case AllArguments():
            return f"sha256:{_digest(call.stored)}"
        case Template(text):
            made = _filled(task, option, text, call)
        case Computed(function):  # pragma: no branch (there is no other key)
            made = _made(task, option, lambda: function(*call.args, **call.kwargs))
    if not isinstance(made, str) or not made:
        invalid = RefusedKey if made == "" else InvalidKey
        raise invalid(task, option, f"is {shown(made)}: give a text that is not empty")
    return as_key(made)


def as_key(text: str) -> str:
    """Return the text, or its digest if it does not fit the pattern of keys. Keys are only compared for equality."""
    return text if NAME.fullmatch(text) else f"sha256:{_digest(text)}"


def _common(option: str, value: object, otherwise: str) -> Key | None:
    if value is None or value is False:
        return None
    if value is True and option == "unique":
        return AllArguments()
    if callable(value):
        return Computed(value)
    problem = f"={shown(value)}: give {otherwise}, or a function of the task's arguments"
    if value == "":
        raise RefusedValue(option, problem)
    raise InvalidOption(f"{option}{problem}")


def _filled(task: str, option: str, template: str, call: Bound) -> str:
    """Return a template with the arguments in their places."""
    try:
        return _made(task, option, lambda: template.format_map(call.values))
    except InvalidKey as error:
        if isinstance(error.__cause__, LookupError):  # "{order[id]}": the argument has the type, but not this content
            raise RefusedKey(task, option, error.problem) from error.__cause__
        raise


def _made(task: str, option: str, make: Callable[[], str]) -> str:
    try:
        return make()
    except Exception as error:  # the user's code, or an argument without the attribute that the template names
        raise InvalidKey(task, option, f"raised {type(error).__name__}: {error}") from error


def _digest(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()
