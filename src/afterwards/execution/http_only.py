"""Reject dependencies and parameters that need an HTTP request: a task runs without one."""

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

from fastapi import Response, UploadFile, params
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection

from afterwards.core.errors import InvalidDependency, NeedsHttp
from afterwards.execution.parameters import VARIADIC, Declared, is_class, unwrapped

_READ_EARLIER = "read it in the endpoint, and pass what the task needs as an argument"
ENQUEUE = "to add another task, `await other_task.enqueue(...)`"
_CONNECTIONS = (
    (
        HTTPConnection,
        "read it in the endpoint, and pass what the task needs as an argument; for the application and its state, "
        "use a dependency that takes `Request` and reads .app or .state",
    ),
    (Response, "the response has been sent by then: change it in the endpoint"),
    (BackgroundTasks, ENQUEUE),
    (SecurityScopes, "check the scopes in the endpoint"),
)
_SOURCES = (
    (params.Header, "an HTTP header"),
    (params.Cookie, "a cookie"),
    (params.Path, "the path"),
    (params.File, "an uploaded file"),
    (params.Form, "a form"),
    (params.Body, "the request body"),
    (FieldInfo, "the query string"),
)


def refuse_call(call: Callable[..., Any], chain: str) -> None:
    """Reject a dependency that would fail in each attempt."""
    if isinstance(unwrapped(call), SecurityBase):
        raise NeedsHttp(chain, "reads the credentials of a request", _READ_EARLIER)
    if type(call).__hash__ is None:
        raise InvalidDependency(
            chain, "cannot be hashed, but dependencies are cached, as in FastAPI: give it a __hash__"
        )


def refuse_parameter(declared: Declared) -> None:
    """Reject a dependency's parameter that only an HTTP request could fill."""
    refuse_unfilled(declared)
    if declared.kind in VARIADIC:
        problem = "accepts any arguments, so it is unknown which to pass: name them (a decorator needs functools.wraps)"
        raise InvalidDependency(declared.chain, problem)
    refuse_connections(declared)
    source = _source(declared)
    if source is not None:
        raise NeedsHttp(declared.chain, f"is read from {source}", _READ_EARLIER)


def refuse_unfilled(declared: Declared) -> None:
    """Reject the default ``injected()`` where no dependency provides a value."""
    if declared.injected:
        raise InvalidDependency(
            declared.chain,
            "has the default injected(), but no dependency: annotate it as `Annotated[Type, Depends(...)]`",
        )


def refuse_connections(declared: Declared) -> None:
    """Reject a parameter that asks for a part of the request or of the response."""
    for cls, fix in _CONNECTIONS:
        if is_class(declared.type, cls):
            raise NeedsHttp(declared.chain, f"is a {declared.type.__name__}", fix)


def _source(declared: Declared) -> str | None:
    """Return the part of the request that FastAPI would read the parameter from; None if a plain default suffices."""
    if declared.marker is not None:
        return next(source for cls, source in _SOURCES if isinstance(declared.marker, cls))
    if declared.optional:
        return None
    if is_class(declared.type, UploadFile):
        return "an uploaded file"
    types = (get_origin(declared.type) or declared.type, *get_args(declared.type))
    in_body = any(is_class(cls, BaseModel, dict, list, set, tuple) or is_dataclass(cls) for cls in types)
    return "the request body" if in_body else "the query string or the path"
