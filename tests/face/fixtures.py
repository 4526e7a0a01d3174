"""Fixtures of the tests that serve applications."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from face import diary
from face.serving import an_engine


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The diary of this test, from its first line."""
    diary.said.clear()
    yield diary.said
    diary.said.clear()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return an_engine(tmp_path)
