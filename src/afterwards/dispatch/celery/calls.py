"""Calls of an application's own Celery tasks. Nothing here imports Celery before a task of it was given."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from typing_extensions import ParamSpec

from afterwards.core.errors import InvalidOption, UnstorableArgument
from afterwards.core.text import said_by, shown, type_name

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class CeleryResult(Protocol[R_co]):
    """A result of Celery's, as type checkers see it."""

    def get(self) -> R_co: ...


class CeleryTask(Protocol[P, R_co]):
    """A Celery task or signature, as type checkers see it with celery-types. Without those its type is Any."""

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> CeleryResult[R_co]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CeleryCall:
    """One call of a Celery task that can be sent: its arguments fit, and can be written."""

    id: str
    name: str
    app: Any
    apply_async: Callable[..., Any]  # Celery's, with the arguments; an application's task classes may override it
    context: Context  # where it was added: tracing writes its trace into the message


def celery_task(given: object) -> Any | None:
    """Return the Celery task or signature that was given, also behind Celery's lazy proxy. None for anything else."""
    if "celery" not in sys.modules:  # nobody has imported it, so it cannot be one
        return None
    if _is_a(given, "celery.local", "Proxy"):
        given = given._get_current_object()  # type: ignore[attr-defined]  # of `shared_task`, or not finalised yet
    found = _is_a(given, "celery.app.task", "Task") or _is_a(given, "celery.canvas", "Signature")
    return given if found else None


def _is_a(given: object, module: str, name: str) -> bool:
    """Return whether it is an object of Celery's class, and not a proxy that imitates one and may do more."""
    kind = getattr(sys.modules.get(module), name, None)  # Celery imports its modules when they are needed
    return kind is not None and issubclass(type(given), kind)


def celery_call(given: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CeleryCall:
    """Check a call of a Celery task or signature, as ``celery_task`` returned it.

    Raises TypeError for arguments that do not fit the signature, UnstorableArgument for one that Celery's serializer
    cannot write, InvalidOption for several tasks at once.
    """
    if isinstance(given, dict):  # a signature
        return _of_signature(given, args, kwargs)
    _check(given, args, kwargs, given.serializer)
    return CeleryCall(
        id=str(uuid4()),
        name=given.name,
        app=given.app,
        apply_async=partial(given.apply_async, args, kwargs),
        context=copy_context(),
    )


def _of_signature(given: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CeleryCall:
    if type(given) is not sys.modules["celery.canvas"].Signature:
        raise InvalidOption(
            f"{shown(given)}: a chain, group or chord is sent as several messages, some of which may be accepted and "
            "others not: add a Celery task that starts it, or call its delay()"
        )
    whole = given.clone(args, kwargs)
    task = whole.app.tasks.get(whole.task)
    if task is not None:  # otherwise only the workers know it
        _check(task, whole.args, whole.kwargs, whole.options.get("serializer") or task.serializer)
    return CeleryCall(
        id=whole.options.get("task_id") or str(uuid4()),
        name=whole.task,
        app=whole.app,
        apply_async=whole.apply_async,
        context=copy_context(),
    )


def _check(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], serializer: str | None) -> None:
    # Imported here: kombu is Celery's, and an application without Celery need not have it.
    from kombu.exceptions import EncodeError
    from kombu.serialization import dumps

    if task.typing and hasattr(task, "__header__"):
        task.__header__(*args, **kwargs)
    dump_models = getattr(task, "_dump_pydantic_arguments", None)  # of tasks with pydantic=True, from Celery 5.6
    if dump_models is not None and serializer != "pickle":
        args, kwargs = dump_models(args, kwargs)
    write = partial(dumps, serializer=serializer or task.app.conf.task_serializer)
    try:
        write((args, kwargs))
    except EncodeError as error:
        parameter = _first_that_fails(task, args, kwargs, write, EncodeError)
        raise UnstorableArgument(
            task.name,
            parameter,
            f"Celery's serializer cannot write it: {type_name(error.__cause__ or error)}: "
            f"{said_by(error.__cause__ or error)}",
        ) from error


def _first_that_fails(
    task: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    write: Callable[[Any], Any],
    failure: type[Exception],
) -> str:
    """Return the name of the first argument that cannot be written."""
    for name, value in {**_positional(task, args), **kwargs}.items():
        try:
            write(value)
        except failure:
            return name
    return "arguments"


def _positional(task: Any, args: Sequence[Any]) -> dict[str, Any]:
    try:
        return dict(signature(task.run).bind_partial(*args).arguments)
    except (TypeError, ValueError):  # `typing=False`, or written in C
        return {f"argument {number}": value for number, value in enumerate(args, 1)}
