"""Read the dependencies of a task function from its signature, once, and reject mistakes at that time."""

import inspect
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from fastapi import WebSocket
from fastapi.params import Depends
from starlette.requests import HTTPConnection

from afterwards.core.errors import InvalidDependency
from afterwards.execution.http_only import refuse_call, refuse_connections, refuse_parameter, refuse_unfilled
from afterwards.execution.parameters import ARROW, Declared, declarations, is_class, unwrapped


class AttemptContext:
    """Annotation of a parameter that takes the context of the attempt."""

    __slots__ = ()


class Kind(Enum):
    """The way in which a dependency is called."""

    PLAIN = auto()
    COROUTINE = auto()
    GENERATOR = auto()
    ASYNC_GENERATOR = auto()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """One dependency: its callable, how to call it, and the sources of its parameters."""

    call: Callable[..., Any]  # as declared: the key of the cache and of overrides
    run: Callable[..., Any]  # the callable: the same, or a context manager made from a generator
    kind: Kind
    chain: str  # the path to it, for errors: "task send_mail -> get_user"
    use_cache: bool
    parameters: tuple[tuple[str, "Node"], ...]
    requests: tuple[str, ...]  # the parameters that take a Request
    contexts: tuple[str, ...]  # those that take the TaskContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The dependencies of a task function. Most functions have none."""

    parameters: tuple[tuple[str, Node], ...]
    contexts: tuple[str, ...]  # the parameters that take the TaskContext
    injected: frozenset[str]


def plan(function: Callable[..., Any], *, name: str) -> Plan:
    """Read all dependencies of a task function, recursively. Raises if one of them needs an HTTP request."""
    parameters, contexts = [], []
    for declared in declarations(function, f"task {name}"):
        if _is_context(declared):
            contexts.append(declared.name)
        elif isinstance(declared.marker, Depends):
            parameters.append((declared.name, _dependency(declared, declared.marker, f"task {name}")))
        else:
            refuse_unfilled(declared)
            refuse_connections(declared)
    injected = frozenset([*(name for name, _ in parameters), *contexts])
    return Plan(parameters=tuple(parameters), contexts=tuple(contexts), injected=injected)


def standing_in(node: Node, call: Callable[..., Any]) -> Node:
    """Return the node of an override from ``app.dependency_overrides``."""
    above, _, label = node.chain.rpartition(ARROW)
    return _node(call, f"{above}{ARROW}{_label(call)} (overriding {label})")


def _dependency(declared: Declared, marker: Depends, chain: str) -> Node:
    """Return the node of a parameter that is marked with ``Depends``."""
    call = declared.type if marker.dependency is None else marker.dependency
    if call is Any or call is inspect.Parameter.empty:
        raise InvalidDependency(declared.chain, "has neither a type nor an argument in Depends(): give one of them")
    if not callable(call):
        raise InvalidDependency(declared.chain, f"depends on {call!r}, which is not callable: give the function itself")
    if declared.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise InvalidDependency(
            declared.chain, "is positional-only, but dependencies are passed by name: remove the `/`"
        )
    return _node(call, f"{chain}{ARROW}{_label(call)}", use_cache=marker.use_cache)


def _node(call: Callable[..., Any], chain: str, *, use_cache: bool = True) -> Node:
    refuse_call(call, chain)
    parameters, requests, contexts = [], [], []
    for declared in declarations(call, chain):
        if _is_context(declared):
            contexts.append(declared.name)
        elif isinstance(declared.marker, Depends):
            parameters.append((declared.name, _dependency(declared, declared.marker, chain)))
        elif _is_request(declared):
            requests.append(declared.name)
        else:
            refuse_parameter(declared)
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


def _is_request(declared: Declared) -> bool:
    return (
        declared.marker is None and is_class(declared.type, HTTPConnection) and not is_class(declared.type, WebSocket)
    )


def _is_context(declared: Declared) -> bool:
    """Return whether a parameter's annotation asks for the context; a bare ``Depends()`` changes nothing."""
    given = declared.marker.dependency if isinstance(declared.marker, Depends) else declared.marker
    return given in (None, declared.type) and is_class(declared.type, AttemptContext)


def _kind(call: Any) -> Kind:
    """Return how FastAPI would call it: a decorator and the function that it wraps both count."""
    if inspect.isclass(unwrapped(call)):
        return Kind.PLAIN
    faces = [face for outer in (call, unwrapped(call)) for face in (outer, unwrapped(outer.__call__))]
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


def _label(call: Callable[..., Any]) -> str:
    innermost = unwrapped(call)
    name: str = getattr(innermost, "__qualname__", type(innermost).__qualname__)
    return name.rpartition("<locals>.")[2]
