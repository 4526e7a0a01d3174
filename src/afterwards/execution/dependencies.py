"""FastAPI's ``Depends`` inside task functions, resolved once per attempt."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
)
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio import CapacityLimiter, WouldBlock
from fastapi import FastAPI, Request
from starlette.datastructures import State

from afterwards.core.errors import NoHttpRequest, SwallowedException
from afterwards.execution.dependency_plan import Kind, Node, Plan, standing_in
from afterwards.execution.threads import OnCancel, Threads

T = TypeVar("T")

THREAD_TIMEOUT = 5.0
"""Seconds that a dependency waits for a thread when the system has none left."""


class Cleanup:
    """Closes the generators that an attempt entered, in reverse order, when the task has ended.

    The task's exception is thrown into them, as in FastAPI. A generator that raises another exception replaces it. One
    that swallows it hides it from those entered before, which then see a success, but not from the attempt: that ends
    with ``SwallowedException``, or, if it was a cancellation, with the cancellation.

    Cancel an attempt with ``asyncio``: that interrupts one ``await``, and leaves those of a rollback alone. A scope of
    anyio's would interrupt them too.
    """

    __slots__ = ("_stack", "_swallowed_by")

    def __init__(self) -> None:
        self._stack: AsyncExitStack | None = None  # created when needed: most dependencies are not generators
        self._swallowed_by = ""

    async def __aenter__(self) -> Self:
        return self

    async def enter(self, generator: AbstractAsyncContextManager[Any], chain: str) -> Any:
        """Run a generator to its ``yield``, and close it later."""
        value = await generator.__aenter__()
        self._stack = self._stack or AsyncExitStack()
        self._stack.push_async_exit(partial(self._close, generator, chain))
        return value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._stack is None:
            return False
        swallowed = await self._stack.__aexit__(kind, error, traceback)
        if swallowed and isinstance(error, Exception):
            raise SwallowedException(self._swallowed_by, error) from error
        return False  # a cancellation continues even if it was swallowed

    async def _close(self, generator: AbstractAsyncContextManager[Any], chain: str, *error: Any) -> bool | None:
        swallowed = await generator.__aexit__(*error)
        if swallowed:
            self._swallowed_by = chain
        return swallowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """Resolves the dependencies of task functions for one application, whose ``dependency_overrides`` hold here too.

    ``limiter`` bounds the threads of ``def`` dependencies; ``state`` is what the application's lifespan yielded.
    """

    app: FastAPI
    limiter: CapacityLimiter
    state: Mapping[str, Any] = field(default_factory=dict)
    threads: Threads = field(default_factory=Threads)  # unbounded: callers use the limiter, or need no place of it
    _overriding: dict[Node, Node] = field(default_factory=dict, init=False, repr=False)

    def close(self) -> None:
        """Let the threads end after their current calls."""
        self.threads.close()

    async def solve(self, plan: Plan, cleanup: Cleanup, attempting: Any = None) -> dict[str, Any]:
        """Return an attempt's injected parameters. Each dependency is called once unless ``use_cache=False``.

        Dependencies run in sequence, in the order of the parameters. An exception of one ends the attempt.
        """
        values: dict[str, Any] = {}
        if plan.parameters:
            run = _Run(self, cleanup, attempting)
            for name, node in plan.parameters:
                values[name] = await run.value(node)
        return values

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Call a function in a thread when the limiter permits. A cancelled caller waits for the call to end."""
        place = object()
        if not _take_if_free(place, self.limiter):
            await self.limiter.acquire_on_behalf_of(place)
        try:
            return await self.threads.run(function, on_cancel=OnCancel.WAIT, give_up_after=THREAD_TIMEOUT)
        finally:
            self.limiter.release_on_behalf_of(place)

    def overriding(self, node: Node, call: Callable[..., Any]) -> Node:
        """Return the node of an override of a dependency. It is cached until the override changes."""
        known = self._overriding.get(node)
        if known is None or known.call is not call:
            known = self._overriding[node] = standing_in(node, call)
        return known


class TaskRequest(Request):
    """The ``Request`` of a task's dependencies: the application and its state. Anything that belongs to HTTP raises."""

    def __init__(self, app: FastAPI, state: State, values: dict[str, Any], chain: str) -> None:
        super().__init__(_Scope({"type": "http", "app": app, "state": values}, chain))
        self._chain = chain
        self._shared_state = state

    @property
    def state(self) -> State:
        """The state shared by all dependencies of an attempt. It starts with what the lifespan yielded."""
        return self._shared_state

    def __getattribute__(self, name: str) -> Any:
        if name in _ONLY_HTTP:
            raise NoHttpRequest(self._chain, f"request.{name}")
        return super().__getattribute__(name)

    def __contains__(self, key: object) -> bool:
        return key in self.scope


_ONLY_HTTP = frozenset(
    name
    for name in dir(Request)  # so that attributes added by a later Starlette raise too
    if not name.startswith("_") and name not in {"app", "state", "scope", "get", "keys", "items", "values"}
)


class _Scope(dict[str, Any]):
    """A scope without a connection. Reading a missing key, also with ``get``, raises an error that says why."""

    def __init__(self, values: dict[str, Any], chain: str) -> None:
        super().__init__(values)
        self._chain = chain

    def __missing__(self, key: str) -> Any:
        raise NoHttpRequest(self._chain, f'request["{key}"]')

    def get(self, key: str, default: Any = None) -> Any:
        return self[key]


class _Run:
    """Resolves one attempt's dependencies. Holds the values so far, and the state that they share."""

    __slots__ = ("attempting", "cache", "cleanup", "overrides", "resolver", "state")

    def __init__(self, resolver: Resolver, cleanup: Cleanup, attempting: Any) -> None:
        self.resolver = resolver
        self.attempting = attempting  # has the TaskContext that a dependency gets
        self.cleanup = cleanup
        self.overrides = resolver.app.dependency_overrides  # read each time: tests replace the whole dict
        self.cache: dict[Callable[..., Any], Any] = {}
        self.state: tuple[State, dict[str, Any]] | None = None

    async def value(self, declared: Node) -> Any:
        """Return the value of a dependency, from the cache or by calling it."""
        if declared.use_cache and declared.call in self.cache:
            return self.cache[declared.call]
        node = self.in_force(declared) if self.overrides else declared
        values: dict[str, Any] = {}
        for name, dependency in node.parameters:
            values[name] = await self.value(dependency)
        for name in node.requests:
            values[name] = self.request(node)
        for name in node.contexts:
            values[name] = self.attempting.context
        match node.kind:
            case Kind.COROUTINE:
                value = await node.run(**values)
            case Kind.PLAIN:
                value = await self.resolver.in_thread(partial(node.run, **values))
            case Kind.ASYNC_GENERATOR:
                value = await self.cleanup.enter(node.run(**values), node.chain)
            case Kind.GENERATOR:
                value = await self.cleanup.enter(_InThreads(node.run(**values), self.resolver), node.chain)
        self.cache.setdefault(declared.call, value)
        return value

    def in_force(self, declared: Node) -> Node:
        call = self.overrides.get(declared.call)
        return declared if call is None else self.resolver.overriding(declared, call)

    def request(self, node: Node) -> TaskRequest:
        if self.state is None:
            values = dict(self.resolver.state)
            self.state = State(values), values
        return TaskRequest(self.resolver.app, *self.state, node.chain)


class _InThreads:
    """A synchronous context manager that is entered and left in threads."""

    __slots__ = ("_entered", "_manager", "_resolver")

    def __init__(self, manager: AbstractContextManager[Any], resolver: Resolver) -> None:
        self._manager = manager
        self._resolver = resolver
        self._entered = False

    async def __aenter__(self) -> Any:
        try:
            return await self._resolver.in_thread(self._enter)
        except asyncio.CancelledError as error:
            if self._entered:  # cancelled while the thread was running
                await self.__aexit__(type(error), error, error.__traceback__)
            raise

    def _enter(self) -> Any:
        value = self._manager.__enter__()
        self._entered = True
        return value

    async def __aexit__(self, *error: Any) -> bool | None:
        """Exit in a thread that counts against the limit, or, at the limit, in one that does not count.

        A generator about to close may hold the pool's last connection while every thread waits for a connection, so it
        must not wait for a thread. (FastAPI runs the exits of its generators beside its limit, too.)
        """
        place, limiter = object(), self._resolver.limiter
        counted = _take_if_free(place, limiter)
        try:
            leave = partial(self._manager.__exit__, *error)
            return await self._resolver.threads.run(leave, on_cancel=OnCancel.MAKE)
        finally:
            if counted:
                limiter.release_on_behalf_of(place)


def _take_if_free(place: object, limiter: CapacityLimiter) -> bool:
    try:
        limiter.acquire_on_behalf_of_nowait(place)
    except WouldBlock:
        return False
    return True
