"""Measure contenders in turns, and compare them round by round."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar

from uvicorn.loops.auto import auto_loop_factory

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Aim:
    """A lower or upper bound for a ratio."""

    number: float
    at_most: bool = False

    def reached(self, ratio: float) -> bool:
        return ratio <= self.number if self.at_most else ratio >= self.number

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.number:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Our measurements and a peer's, one of each per round, so that a disturbance affects both."""

    what: str
    ours: Sequence[float]
    peer: str = ""
    theirs: Sequence[float] = ()
    unit: str = "/s"
    aim: Aim | None = None  # of the ratio; without a peer, of the figure itself

    @property
    def ratios(self) -> list[float]:
        """Our results divided by the peer's, by round."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)] if self.theirs else []

    @property
    def reached(self) -> bool | None:
        """True if the aim is reached; None without an aim."""
        return None if self.aim is None else self.aim.reached(median(self.ratios or self.ours))


def in_turns(rounds: int, *contenders: Callable[[], T]) -> list[list[T]]:
    """Return each contender's results by round. Each one goes first as often as last."""
    results: list[list[T]] = [[] for _ in contenders]
    for number in range(rounds):
        order = list(zip(contenders, results, strict=True))
        for contender, came in order if number % 2 else reversed(order):
            came.append(contender())
    return results


def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return a function's result from a new process, where nothing is imported, opened or allocated yet."""
    with beside(function, *args, **kwargs) as result:
        return result.result()


@contextmanager
def beside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Iterator["Future[T]"]:
    """Run a function in a new process during the block, and wait for its end."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        yield process.submit(function, *args, **kwargs)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvicorn's event loop: uvloop, if it is installed."""
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        return runner.run(work)


@contextmanager
def folder() -> Iterator[Path]:
    """Provide a folder on a disk, which ``/tmp`` often is not."""
    disk = "/var/tmp"
    with TemporaryDirectory(prefix="afterwards-", dir=disk if Path(disk).is_dir() else None) as name:
        yield Path(name)


def percentile(values: Sequence[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]
