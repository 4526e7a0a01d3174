"""Which URLs mean the same engine."""

from pathlib import Path

import pytest

from afterwards import Afterwards, engines
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


def test_a_file_that_is_reached_through_other_folders_has_one_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    with engines.replaced(made):
        engine = engines.shared("sqlite:///data/tasks.db")
        assert engines.shared("sqlite:///data/../data/tasks.db") is engine
        assert engines.shared("sqlite:///linked/tasks.db") is engine


def test_installations_in_two_working_folders_have_two_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shops = []
    for folder in (tmp_path / "a b%3F", tmp_path / "two"):
        folder.mkdir()
        monkeypatch.chdir(folder)
        shops.append(Afterwards(url="sqlite:///tasks.db"))
    with engines.replaced(made):
        one, another = (engines.shared(shop.client.url) for shop in shops)
    assert one is not another
    assert [engines.shown(shop.client.url) for shop in shops] == [
        f"sqlite:///{tmp_path}/{folder}/tasks.db" for folder in ("a b%3F", "two")
    ]


def test_a_url_that_cannot_be_read_is_refused_when_it_is_opened() -> None:
    assert engines.absolute("tasks.db") == "tasks.db"
