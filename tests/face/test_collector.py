"""What serving changes in Python's garbage collector, and undoes at its end."""

import gc
from collections.abc import Iterator

import pytest

from face.serving import working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

OLD, NEW = (700, 10, 10), (2000, 10, 10)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


async def test_while_serving_it_looks_as_often_as_in_a_newer_python(url: str) -> None:
    gc.set_threshold(*OLD)
    async with working(url):
        assert gc.get_threshold() == NEW
    assert gc.get_threshold() == OLD


async def test_what_somebody_chose_before_stays(url: str) -> None:
    gc.set_threshold(701, 10, 10)
    async with working(url):
        assert gc.get_threshold() == (701, 10, 10)
    assert gc.get_threshold() == (701, 10, 10)


async def test_what_somebody_chooses_meanwhile_stays(url: str) -> None:
    gc.set_threshold(*OLD)
    async with working(url):
        gc.set_threshold(50_000, 10, 10)
    assert gc.get_threshold() == (50_000, 10, 10)
