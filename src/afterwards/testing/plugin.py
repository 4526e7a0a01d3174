"""The pytest plugin, loaded by itself: tests never touch a developer's tasks, and see what they added run."""

from collections.abc import Iterator

import pytest

from afterwards.testing.clock import FakeClock
from afterwards.testing.inline import InMemory, clock


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "afterwards(real=False): with real=True the test uses the engine and the worker of its installations"
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Keep the tasks of one test in memory, from before its first fixture until after its last."""
    marker = item.get_closest_marker("afterwards")
    if marker is not None and marker.kwargs.get("real", False):
        return (yield)
    with InMemory().installed():
        return (yield)


@pytest.fixture
def afterwards_clock() -> FakeClock:
    """The clock of this test's tasks, as ``afterwards.testing.clock()`` gives it."""
    return clock()
