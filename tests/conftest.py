"""What all tests share: one process runs them all, and each begins as in a process of its own."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from afterwards import Afterwards, telemetry
from afterwards.client.installations import installations
from afterwards.core.process_state import afresh
from afterwards.execution.process_wide import process_wide
from afterwards.tasks.function import TaskFunction
from afterwards.tasks.registry import registry
from servers.fixtures import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]  # fixtures for all tests

pytest.register_assert_rewrite("afterwards.testing.conformance")

OURS = (Path(__file__).parent, Path(__file__).parent.parent / "examples")

_declared: dict[str, list[TaskFunction[Any, Any, Any]]] = {}
"""The task functions of each module that was collected or imported on the way."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def pytest_collection_finish() -> None:
    """Remember what conftest files have imported, which are loaded between collectors."""
    _remember()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Import each module as a process of its own would: two modules may have task functions of the same name."""
    with afresh(registry, installations):
        try:
            return (yield)
        finally:
            _remember()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run each test with the task functions and installations of its module, and of what that imports."""
    module = item.getparent(pytest.Module)
    reached = _reached(module.obj) if module is not None else ()
    with afresh(registry, installations, process_wide, telemetry.last_written):
        for one in reached:
            for function in _declared.get(one.__name__, ()):
                registry.add(function)
            for value in vars(one).values():
                if isinstance(value, Afterwards):
                    installations.add(value.client)
        return (yield)


@pytest.fixture(autouse=True)
def nothing_left_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail where a test leaves an installation open: its engine, its threads and its worker would go on."""
    before = {client for client in installations if client.opened}
    yield
    marker = request.node.get_closest_marker("afterwards")
    if marker is not None and marker.kwargs.get("real"):  # other tests keep their tasks in memory, which needs no end
        left = [client.url for client in installations if client.opened and client not in before]
        assert not left, f"left open: {left}"


def _remember() -> None:
    for function in registry:
        _declared.setdefault(function.__module__, []).append(function)


@cache
def _reached(module: ModuleType) -> list[ModuleType]:
    """Return a module of ours and those of ours that it imports, directly or not."""
    found = [module]
    for one in found:  # which grows meanwhile
        found += [imported for imported in _imported_by(one) if imported not in found]
    return found


def _imported_by(module: ModuleType) -> list[ModuleType]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return [sys.modules[name] for name in names if name in sys.modules and _is_ours(sys.modules[name])]


def _is_ours(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and any(Path(file).is_relative_to(folder) for folder in OURS)
