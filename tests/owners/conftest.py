from collections.abc import Iterator
from pathlib import Path

import pytest

from afterwards import engines
from afterwards.engines.memory import MemoryEngine
from face.serving import an_engine
from owners.shop import gates


@pytest.fixture(autouse=True)
def closed_gates() -> Iterator[None]:
    gates.clear()
    yield
    gates.clear()


@pytest.fixture
def url() -> Iterator[str]:
    """The URL of an engine in memory that no other test uses."""
    with engines.replaced(lambda url: MemoryEngine()):
        yield "memory://"


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The URL of an SQLite file."""
    return an_engine(tmp_path)
