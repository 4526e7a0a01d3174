"""What a task function depends on, read from its signature once, with every mistake refused there and then."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import (
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, is_dataclass
from enum import Enum, auto
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from fastapi import Response, UploadFile, WebSocket, params
from fastapi.params import Depends
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection

from afterwards.core.errors import InvalidDependency, NeedsHttp, UnresolvedAnnotation
from afterwards.core.injected import INJECTED

T = TypeVar("T")


class AttemptContext:
    """What a parameter is annotated with that takes what is known of the attempt."""

    __slots__ = ()


class Kind(Enum):
    """How a dependency is called."""

    PLAIN = auto()
    COROUTINE = auto()
    GENERATOR = auto()
    ASYNC_GENERATOR = auto()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """One dependency: what to call, how, and what fills its parameters."""

    call: Callable[..., Any]  # what was declared: the key of the cache and of overrides
    run: Callable[..., Any]  # what is called: the same, or the context manager made of a generator
    kind: Kind
    chain: str  # how it was reached, for errors: "task send_mail -> get_user"
    use_cache: bool
    parameters: tuple[tuple[str, "Node"], ...]
    requests: tuple[str, ...]  # the parameters that take a Request
    contexts: tuple[str, ...]  # those that take the TaskContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What fills a task function's ``Depends`` parameters. Most functions have none: then there is nothing to solve."""

    parameters: tuple[tuple[str, Node], ...]
    contexts: tuple[str, ...]  # the parameters that take the TaskContext
    injected: frozenset[str]


def plan(function: Callable[..., Any], *, name: str) -> Plan:
    """Read what a task function depends on, to the last function. Raises if any of it needs an HTTP request."""
    parameters, contexts = [], []
    for declared in _declarations(function, f"task {name}"):
        if _is_context(declared):
            contexts.append(declared.name)
        elif isinstance(declared.marker, Depends):
            parameters.append((declared.name, _dependency(declared, declared.marker, f"task {name}")))
        else:
            _refuse_unfilled(declared)
            _refuse_connections(declared)
    injected = frozenset([*(name for name, _ in parameters), *contexts])
    return Plan(parameters=tuple(parameters), contexts=tuple(contexts), injected=injected)


def standing_in(node: Node, call: Callable[..., Any]) -> Node:
    """The node of what ``app.dependency_overrides`` puts in the place of another."""
    above, _, label = node.chain.rpartition(_ARROW)
    return _node(call, f"{above}{_ARROW}{_label(call)} (overriding {label})")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Declared:
    """A parameter as its function declares it."""

    name: str
    chain: str
    kind: Any  # inspect's
    type: Any
    marker: Depends | FieldInfo | None
    optional: bool
    injected: bool  # its default is `injected()`


def _dependency(declared: _Declared, marker: Depends, chain: str) -> Node:
    """The node of a parameter that is marked with ``Depends``."""
    call = declared.type if marker.dependency is None else marker.dependency
    if getattr(call, "__module__", None) == "afterwards.web.injection":
        raise NeedsHttp(declared.chain, "is a request's BackgroundTasks", _ENQUEUE)
    if call is Any or call is inspect.Parameter.empty:
        raise InvalidDependency(declared.chain, "has no type, and its Depends() no argument: give one of them")
    if not callable(call):
        raise InvalidDependency(
            declared.chain, f"depends on {call!r}, which cannot be called: give the function itself"
        )
    if declared.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise InvalidDependency(declared.chain, "is positional-only, and what depends is passed by name")
    return _node(call, f"{chain}{_ARROW}{_label(call)}", use_cache=marker.use_cache)


def _node(call: Callable[..., Any], chain: str, *, use_cache: bool = True) -> Node:
    _refuse_call(call, chain)
    parameters, requests, contexts = [], [], []
    for declared in _declarations(call, chain):
        if _is_context(declared):
            contexts.append(declared.name)
        elif isinstance(declared.marker, Depends):
            parameters.append((declared.name, _dependency(declared, declared.marker, chain)))
        elif _is_request(declared):
            requests.append(declared.name)
        else:
            _refuse_parameter(declared)
    kind = _kind(call)
    return Node(
        call=call,
        run=_runner(call, kind),
        kind=kind,
        chain=chain,
        use_cache=use_cache,
        parameters=tuple(parameters),
        requests=tuple(requests),
        contexts=tuple(contexts),
    )


def _refuse_call(call: Callable[..., Any], chain: str) -> None:
    """Refuse a dependency that could only fail, in each attempt."""
    if isinstance(_unwrapped(call), SecurityBase):
        raise NeedsHttp(chain, "reads the credentials of a request", _READ_EARLIER)
    if type(call).__hash__ is None:
        raise InvalidDependency(
            chain, "cannot be hashed, but dependencies are cached, as in FastAPI: give it a __hash__"
        )


def _is_request(declared: _Declared) -> bool:
    return declared.marker is None and _is(declared.type, HTTPConnection) and not _is(declared.type, WebSocket)


def _is_context(declared: _Declared) -> bool:
    """Whether it asks for the context: by its annotation, to which ``Depends()`` adds nothing."""
    given = declared.marker.dependency if isinstance(declared.marker, Depends) else declared.marker
    return given in (None, declared.type) and _is(declared.type, AttemptContext)


def _refuse_parameter(declared: _Declared) -> None:
    """Refuse a parameter of a dependency that only HTTP could fill."""
    _refuse_unfilled(declared)
    if declared.kind in _VARIADIC:
        problem = (
            "stands for any arguments, so nobody knows which to pass: name them (a decorator needs functools.wraps)"
        )
        raise InvalidDependency(declared.chain, problem)
    _refuse_connections(declared)
    source = _source(declared)
    if source is not None:
        raise NeedsHttp(declared.chain, f"is read from {source}", _READ_EARLIER)


def _refuse_unfilled(declared: _Declared) -> None:
    """Refuse the default ``injected()`` where no dependency gives a value."""
    if declared.injected:
        raise InvalidDependency(
            declared.chain,
            "has the default injected(), and no dependency fills it: annotate it as `Annotated[Type, Depends(...)]`",
        )


def _refuse_connections(declared: _Declared) -> None:
    """Refuse a parameter that asks for a part of the request or of the response."""
    for cls, fix in _CONNECTIONS:
        if _is(declared.type, cls):
            raise NeedsHttp(declared.chain, f"is a {declared.type.__name__}", fix)


def _source(declared: _Declared) -> str | None:
    """The part of a request that FastAPI would read the parameter from, unless a plain default serves."""
    if declared.marker is not None:
        return next(source for cls, source in _SOURCES if isinstance(declared.marker, cls))
    if declared.optional:
        return None
    if _is(declared.type, UploadFile):
        return "an uploaded file"
    types = (get_origin(declared.type) or declared.type, *get_args(declared.type))
    in_body = any(_is(cls, BaseModel, dict, list, set, tuple) or is_dataclass(cls) for cls in types)
    return "the request body" if in_body else "the query string or the path"


_ARROW = " -> "
_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
_READ_EARLIER = "read it in the endpoint, and pass what follows from it to the task as an argument"
_ENQUEUE = "to add another task, `await other_task.enqueue(...)`"
_CONNECTIONS = (
    (
        HTTPConnection,
        "pass what the task needs of it as an argument; for the application and its state, "
        "use a dependency that takes `Request` and reads .app or .state",
    ),
    (Response, "the response is over by then, so change it in the endpoint"),
    (BackgroundTasks, _ENQUEUE),
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


def _declarations(call: Callable[..., Any], chain: str) -> Iterator[_Declared]:
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError) as error:
        raise InvalidDependency(chain, f"has no signature that can be read ({error}): wrap it in a function") from error
    namespace = _namespace(call)
    for parameter in signature.parameters.values():
        yield _declared(parameter, namespace, f"{chain}{_ARROW}parameter {parameter.name}")


def _declared(parameter: inspect.Parameter, namespace: dict[str, Any], chain: str) -> _Declared:
    annotation = parameter.annotation
    marker = _marker(annotation, parameter.default)
    says_all = isinstance(marker, Depends) and marker.dependency is not None
    # A type that nobody looks at need not exist: `session: "Session" = Depends(get_session)`
    if parameter.kind not in _VARIADIC and not says_all:
        annotation = _evaluated(parameter, namespace, chain)
        marker = _marker(annotation, parameter.default)
    return _Declared(
        name=parameter.name,
        chain=chain,
        kind=parameter.kind,
        type=get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation,
        marker=marker,
        optional=parameter.default is not inspect.Parameter.empty,
        injected=parameter.default is INJECTED,
    )


def _marker(annotation: Any, default: Any) -> Depends | FieldInfo | None:
    """What FastAPI goes by: the default, or the last of its own classes inside ``Annotated``."""
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
    except Exception as error:  # the annotation is the user's code, and may raise anything
        raise UnresolvedAnnotation(chain, parameter.annotation, f"{type(error).__name__}: {error}") from error
    return annotation


def _namespace(call: Callable[..., Any]) -> dict[str, Any]:
    """The globals in which a callable's annotations were written."""
    target = _unwrapped(call)
    if not inspect.isroutine(target):
        owner = target if inspect.isclass(target) else type(target)
        methods = ("__new__", "__init__") if owner is target else ("__call__",)
        written = (_unwrapped(getattr(owner, method)) for method in methods)
        target = next((method for method in written if hasattr(method, "__globals__")), owner)
    module = sys.modules.get(target.__module__)
    return getattr(target, "__globals__", None) or dict(vars(module) if module else {})


def _kind(call: Any) -> Kind:
    """How FastAPI would call it: what a decorator wraps decides as much as the decorator does."""
    if inspect.isclass(_unwrapped(call)):
        return Kind.PLAIN
    faces = [face for outer in (call, _unwrapped(call)) for face in (outer, _unwrapped(outer.__call__))]
    for kind, has_kind in (
        (Kind.GENERATOR, inspect.isgeneratorfunction),
        (Kind.ASYNC_GENERATOR, inspect.isasyncgenfunction),
        (Kind.COROUTINE, inspect.iscoroutinefunction),
    ):
        if any(has_kind(face) for face in faces):
            return kind
    return Kind.PLAIN


def _runner(call: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
    match kind:
        case Kind.GENERATOR:
            return contextmanager(call)
        case Kind.ASYNC_GENERATOR:
            return asynccontextmanager(call)
        case Kind.PLAIN | Kind.COROUTINE:
            return call


def _unwrapped(call: Any) -> Any:
    """The function under partials and decorators."""
    while True:
        inner = inspect.unwrap(call.func if isinstance(call, partial) else call)
        if inner is call:
            return call
        call = inner


def _label(call: Callable[..., Any]) -> str:
    innermost = _unwrapped(call)
    name: str = getattr(innermost, "__qualname__", type(innermost).__qualname__)
    return name.rpartition("<locals>.")[2]


def _is(annotation: Any, *classes: type) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, classes)
