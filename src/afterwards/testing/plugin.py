"""The pytest plugin, which pytest loads automatically: it runs every test in test mode (``inline``)."""

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
    """Keep a test's tasks in memory, from before its first fixture until after its last one."""
    marker = item.get_closest_marker("afterwards")
    if marker is not None and marker.kwargs.get("real", False):
        return (yield)
    with InMemory().installed():
        return (yield)


@pytest.fixture
def afterwards_clock() -> FakeClock:
    """The clock of this test's tasks, the same as ``afterwards.testing.clock()``."""
    return clock()
