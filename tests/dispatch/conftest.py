import pytest

from afterwards.engines.memory import MemoryEngine
from afterwards.testing.clock import FakeClock
from face.fixtures import said, url

__all__ = ["said", "url"]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def engine(clock: FakeClock) -> MemoryEngine:
    return MemoryEngine(clock=clock)
