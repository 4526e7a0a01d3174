"""Read the parameters of a callable as FastAPI does: annotation, marker and default."""

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from fastapi import params
from fastapi.params import Depends
from pydantic.fields import FieldInfo

from afterwards.core.errors import InvalidDependency, UnresolvedAnnotation
from afterwards.core.injected import INJECTED

ARROW = " -> "
"""Separator between the steps of a chain of dependencies in error messages."""

VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A parameter as its function declares it."""

    name: str
    chain: str
    kind: Any  # inspect's
    type: Any
    marker: Depends | FieldInfo | None
    optional: bool
    injected: bool  # its default is `injected()`


def declarations(call: Callable[..., Any], chain: str) -> Iterator[Declared]:
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError) as error:
        raise InvalidDependency(chain, f"has no readable signature ({error}): wrap it in a function") from error
    namespace = _namespace(call)
    for parameter in signature.parameters.values():
        yield _declared(parameter, namespace, f"{chain}{ARROW}parameter {parameter.name}")


def _declared(parameter: inspect.Parameter, namespace: dict[str, Any], chain: str) -> Declared:
    annotation = parameter.annotation
    marker = _marker(annotation, parameter.default)
    says_all = isinstance(marker, Depends) and marker.dependency is not None
    # A type that is not used here need not exist: `session: "Session" = Depends(get_session)`
    if parameter.kind not in VARIADIC and not says_all:
        annotation = _evaluated(parameter, namespace, chain)
        marker = _marker(annotation, parameter.default)
    return Declared(
        name=parameter.name,
        chain=chain,
        kind=parameter.kind,
        type=get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation,
        marker=marker,
        optional=parameter.default is not inspect.Parameter.empty,
        injected=parameter.default is INJECTED,
    )


def _marker(annotation: Any, default: Any) -> Depends | FieldInfo | None:
    """Return the marker that FastAPI uses: the default, or the last of its own classes inside ``Annotated``."""
    if isinstance(default, (Depends, FieldInfo)):
        return default
    if get_origin(annotation) is not Annotated:
        return None
    markers = (mark for mark in annotation.__metadata__ if isinstance(mark, (Depends, params.Param, params.Body)))
    return next(iter(reversed([*markers])), None)


def _evaluated(parameter: inspect.Parameter, namespace: dict[str, Any], chain: str) -> Any:
    holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        annotation = get_type_hints(holder, namespace, include_extras=True)[parameter.name]
        while type(annotation).__name__ == "TypeAliasType":  # typing's, or typing_extensions' before Python 3.12
            annotation = annotation.__value__
    except Exception as error:  # the annotation is user code, and may raise anything
        raise UnresolvedAnnotation(chain, parameter.annotation, f"{type(error).__name__}: {error}") from error
    return annotation


def _namespace(call: Callable[..., Any]) -> dict[str, Any]:
    """Return the globals in which a callable's annotations were written."""
    target = unwrapped(call)
    if not inspect.isroutine(target):
        owner = target if inspect.isclass(target) else type(target)
        methods = ("__new__", "__init__") if owner is target else ("__call__",)
        written = (unwrapped(getattr(owner, method)) for method in methods)
        target = next((method for method in written if hasattr(method, "__globals__")), owner)
    module = sys.modules.get(target.__module__)
    return getattr(target, "__globals__", None) or dict(vars(module) if module else {})


def unwrapped(call: Any) -> Any:
    """Return the function inside partials and decorators."""
    while True:
        inner = inspect.unwrap(call.func if isinstance(call, partial) else call)
        if inner is call:
            return call
        call = inner


def is_class(annotation: Any, *classes: type) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, classes)
