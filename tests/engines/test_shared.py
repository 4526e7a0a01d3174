"""Which URLs mean the same engine."""

from pathlib import Path

import pytest

from afterwards import engines
from afterwards.engine import Engine
from afterwards.engines.memory import MemoryEngine


def made(_: str) -> Engine:
    return MemoryEngine()


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("postgresql://user:one@host/db", "postgresql://user:two@host/db"),
        ("redis://:one@host", "redis://:two@host"),
        ("postgresql://host/db?password=one", "postgresql://host/db?password=two"),
        ("sqlite:///a#1.db", "sqlite:///a#2.db"),
        ("memory://one", "memory://two"),
    ],
)
def test_urls_that_differ_mean_different_engines(one: str, another: str) -> None:
    with engines.replaced(made):
        assert engines.shared(one) is not engines.shared(another)
        assert engines.shared(one) is engines.shared(one)


def test_two_ways_to_write_a_url_mean_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with engines.replaced(made):
        engine = engines.shared("sqlite:///tasks.db")
        assert engines.shared(f"sqlite:///{tmp_path}/tasks.db") is engine
        assert engines.shared("sqlite+aiosqlite:///tasks.db\n") is engine
