"""The signature of a task function: the stored types of its arguments, and fast binding of a call."""

import inspect
from collections.abc import Callable
from functools import partial
from inspect import Parameter, Signature
from types import FunctionType, SimpleNamespace
from typing import Any, Final, NotRequired, Optional, Unpack, get_args, get_origin, get_type_hints

from typing_extensions import TypedDict
from typing_extensions import Unpack as UnpackOfExtensions

from afterwards.core.errors import UnusableAnnotation
from afterwards.core.serialization.explain import UNUSABLE, schema_of, unusable
from afterwards.core.serialization.files import with_stored_files
from afterwards.core.serialization.schema import stored_schema

NAMED: Final = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_UNPACKS: Final = (Unpack, UnpackOfExtensions)  # two different objects before Python 3.12


def argument_type(function: Callable[..., Any], parameter: Parameter, task: str) -> Any:
    """Return the type that is stored for a parameter. Raises UnusableAnnotation."""
    try:
        stored = with_stored_files(_as_stored(parameter, resolved(function, parameter.name, parameter.annotation)))
        stored_schema(schema_of(stored))
    except UNUSABLE as error:
        raise UnusableAnnotation(task, parameter.name, unusable(parameter.annotation, error)) from error
    return stored


def resolved(function: Callable[..., Any], name: str, annotation: Any) -> Any:
    """Return the annotation as a type, Any without one. Raises NameError and other errors of evaluation."""
    if annotation is Parameter.empty:
        return Any
    target = _target(function)
    scope = {variable.__name__: variable for variable in getattr(target, "__type_params__", ())}
    holder = SimpleNamespace(__annotations__={name: annotation})
    return get_type_hints(holder, getattr(target, "__globals__", {}), scope, include_extras=True)[name]


def _target(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function whose module defines the names in the annotations."""
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if inspect.isroutine(function) else type(function).__call__


def _as_stored(parameter: Parameter, annotation: Any) -> Any:
    if parameter.kind in _VARIABLE and get_origin(annotation) in _UNPACKS:
        return get_args(annotation)[0]
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return tuple[annotation, ...]
    if parameter.kind is Parameter.VAR_KEYWORD:
        return dict[str, annotation]
    return Optional[annotation] if parameter.default is None else annotation  # noqa: UP045  # ... | None fails on str


def arguments_type(parameters: list[Parameter], types: dict[str, Any]) -> Any:
    """Return a TypedDict of all arguments. Those with defaults may be absent, so stored tasks use new defaults."""
    optional = {p.name for p in parameters if p.default is not Parameter.empty or p.kind in _VARIABLE}
    make: Any = TypedDict  # type checkers accept only a literal dict
    return make("Arguments", {name: NotRequired[t] if name in optional else t for name, t in types.items()})


def binder(function: Callable[..., Any], parameters: list[Parameter]) -> Callable[..., dict[str, Any]]:
    """Return a function with the same signature that returns its arguments by parameter, without omitted defaults.

    The interpreter binds the arguments, with its own errors, at a tenth of the cost of ``Signature.bind``.
    """
    lines = [f"def bind{_bare_signature(parameters)}:", f"    {_GIVEN} = {{}}"]
    for parameter in parameters:
        lines.append(f"    {_condition(parameter)}{_GIVEN}[{parameter.name!r}] = {parameter.name}")
    scope: dict[str, Any] = {repr(_MISSING): _MISSING}
    # exec is safe: all names come from a signature, which holds only identifiers.
    exec("\n".join([*lines, f"    return {_GIVEN}"]), scope)
    bind: FunctionType = scope["bind"]
    bind.__qualname__ = getattr(_target(function), "__qualname__", bind.__qualname__)
    return bind


class _Missing:
    def __repr__(self) -> str:
        return "_afterwards_missing"


_MISSING: Final = _Missing()
_GIVEN: Final = "_afterwards_given"


def _bare_signature(parameters: list[Parameter]) -> Signature:
    """Return the signature without annotations, with one default that means "not given"."""
    bare = []
    for parameter in parameters:
        default = Parameter.empty if parameter.default is Parameter.empty else _MISSING
        bare.append(parameter.replace(annotation=Parameter.empty, default=default))
    return Signature(bare)


def _condition(parameter: Parameter) -> str:
    if parameter.kind in _VARIABLE:
        return f"if {parameter.name}: "
    return "" if parameter.default is Parameter.empty else f"if {parameter.name} is not {_MISSING!r}: "
