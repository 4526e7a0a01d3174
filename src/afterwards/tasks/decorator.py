"""``@task``: turns a function into one whose calls can be stored."""

import inspect
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, Unpack, overload

from typing_extensions import ParamSpec

from afterwards.core.already_called import called_already
from afterwards.core.errors import InvalidOption, InvalidTaskFunction, UnresolvedAnnotation
from afterwards.core.keys import AllArguments, check_parameters
from afterwards.core.keywords import RunIn, TaskSettings, check_task_names
from afterwards.core.names import check_name
from afterwards.core.options import TaskOptions, limit_of
from afterwards.core.schedule import wanted
from afterwards.core.text import shown
from afterwards.execution.process_checks import check_isolated
from afterwards.tasks.function import AsyncTaskFunction, TaskFunction
from afterwards.tasks.registry import registry
from afterwards.tasks.wrapped import is_task_function, refuse_wrapped

P = ParamSpec("P")
R = TypeVar("R")


_NOT_GIVEN = object()


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> TaskFunction[P, Coroutine[object, None, R], R]: ...
@overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R, R]: ...
@overload
def task(**settings: Unpack[TaskSettings]) -> "TaskDecorator": ...
def task(function: Any = _NOT_GIVEN, /, **settings: Any) -> Any:
    """Make a function's calls durable: they are stored before the response leaves, and run even after a crash.

    ``@task`` or ``@task(retries=3, timeout=60, queue="mail")``; the options are those of ``TaskSettings``.
    Arguments are stored as JSON by the types of the signature. Parameters with ``Depends`` are filled when it runs.
    An ``UploadFile``, or a list of them, is stored with its content, and open at its beginning in each attempt.
    Raises InvalidTaskFunction if another process could not call it: lambdas, methods, closures, generators.
    """
    decorator = TaskDecorator(settings)
    return decorator if function is _NOT_GIVEN else decorator(function)


class TaskDecorator:
    """Return the decorator for the options of ``@task(...)``."""

    def __init__(self, settings: dict[str, Any]) -> None:
        check_task_names(settings)
        self._name = settings.pop("name", None)
        self._on_failure = settings.pop("on_failure", None)
        if self._on_failure is not None:
            _check_told(self._on_failure)
        timing = {name: settings.pop(name) for name in ("cron", "tz", "every", "missed") if name in settings}
        self._schedule, self._missed = wanted(**timing)
        self._limit = limit_of(settings.pop("max_concurrency", None), settings.pop("rate_limit", None))
        self._aliases = _aliases(settings.pop("aliases", ()))
        self._run_in = RunIn.of(settings.pop("run_in", RunIn.THREAD))
        self._settings = TaskOptions().declared(settings)
        if self._settings.concurrency_key and not self._limit:
            raise InvalidOption("concurrency_key limits nothing by itself: give max_concurrency or rate_limit too")
        if self._schedule and self._settings.run_at:
            raise InvalidOption("run_at is given, but a schedule sets the times itself: leave run_at out")

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> TaskFunction[P, Coroutine[object, None, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> TaskFunction[P, R, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Any:
        _check_callable(function)
        name = check_name("task name", function.__name__ if self._name is None else self._name)
        kind = AsyncTaskFunction if inspect.iscoroutinefunction(function) else TaskFunction
        made: TaskFunction[Any, Any, Any] = kind(
            function,
            name,
            self._settings,
            self._on_failure,
            schedule=self._schedule,
            missed=self._missed,
            limit=self._limit,
            aliases=self._aliases,
        )
        made.run_in = self._run_in
        with suppress(UnresolvedAnnotation):  # a type defined further down: `prepare` runs again at start-up
            prepare(made)
        registry.add(made)
        return made


def prepare(function: TaskFunction[Any, Any, Any]) -> None:
    """Build the function's codec and plan, so that a mistake in its signature is found now, not at the first call."""
    check_isolated(function)
    _ = function.codec, function.results
    for option, key in function.settings.key_makers():
        check_parameters(function.name, option, key, function.codec.parameters)
        if isinstance(key, AllArguments) and function.codec.files:
            raise InvalidOption(
                f'task "{function.name}", unique=True: two uploads are never the same: name the arguments that must '
                'be unique, as unique="{user_id}"'
            )
    if function.schedule:
        _check_scheduled(function)


def _check_told(told: Any) -> None:
    """Raise InvalidOption for an ``on_failure`` that could not be called with the failure."""
    if not callable(told):
        wrong = called_already(told, "on_failure={}(1)", "on_failure={}")
        raise InvalidOption(f"on_failure={shown(told)}: {wrong}")
    if not is_task_function(told):
        refuse_wrapped(told)
    try:
        inspect.signature(told.function if is_task_function(told) else told).bind(None)
    except ValueError:  # the signature of a function written in C is unknown
        return
    except TypeError as error:
        name = getattr(told, "__name__", type(told).__name__)
        raise InvalidOption(
            f"on_failure={name} cannot be called with one argument, the FailedTask ({error}): "
            "write `def tell(failed: FailedTask)`"
        ) from None


def _aliases(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidOption(f"aliases={names!r}: give a sequence of names, as [{str(names)!r}]")
    return tuple(check_name("alias", name) for name in names)


def _check_scheduled(function: TaskFunction[Any, Any, Any]) -> None:
    """Raise InvalidTaskFunction for a scheduled function with required arguments: a schedule has none to pass."""
    try:
        function.codec.dump((), {})
    except TypeError as error:
        raise InvalidTaskFunction(
            f"@task on {function.__qualname__}: a schedule calls it without arguments, so it is "
            f"{str(error).rpartition('() ')[2]}: give the parameters defaults, or fill them with Depends"
        ) from None


def _check_callable(function: Callable[..., Any]) -> None:
    """Raise InvalidTaskFunction for a function without a name by which another process would find the same code."""
    found = _unstorable(function)
    if found:
        what = getattr(function, "__qualname__", repr(function))
        raise InvalidTaskFunction(f"@task on {what}: {found}")


def _unstorable(function: Any) -> str | None:
    if inspect.ismethod(function) or isinstance(function, (staticmethod, classmethod)) or _in_a_class(function):
        return "it is a method, and its object is not stored: write a function at module level, and pass what it needs"
    if is_task_function(function):
        return "it is a task function already: decorate a `def` or `async def`, and once"
    if function is task:
        return "it is the decorator itself: write @task above a `def` or `async def`"
    if not inspect.isfunction(function):
        return f"found {type(function).__name__} instead of a function: decorate a `def` or `async def`"
    if function.__name__ == "<lambda>":
        return "a lambda has no name by which a worker can find it: write a `def`"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "calling a generator function does not run its body: write a function that returns"
    if function.__closure__ and "<locals>" in function.__qualname__:
        names = ", ".join(function.__code__.co_freevars)
        return (
            f"it is a closure over {names}, which other processes do not have: "
            "write a function at module level, and pass what it needs as arguments or with Depends"
        )
    return None


def _in_a_class(function: Any) -> bool:
    """Return whether a function is defined in a class body and takes the object first: it will be a method."""
    parent = getattr(function, "__qualname__", "").rpartition(".")[0]
    if not parent or parent.endswith("<locals>") or not inspect.isfunction(function):
        return False
    return function.__code__.co_varnames[: function.__code__.co_argcount][:1] in (("self",), ("cls",))
