"""The comparison, as a test."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import ClassVar

import pytest

from afterwards.engine import Engine
from afterwards.engines.memory import MemoryEngine
from afterwards.testing.clock import FakeClock
from afterwards.testing.conformance.generated.steps import Step, any_step
from afterwards.testing.conformance.generated.world import World


class GeneratedConformance:
    """Compare an engine with the one in memory. A subclass opens its engine, empty, once per example.

    class TestMyEngineGenerated(GeneratedConformance):
        def open(self, clock: FakeClock) -> AbstractAsyncContextManager[Engine]:
            return MyEngine(clock=clock)

    It draws ``examples``, always the same, but starts no further one after ``seconds``, so a slow engine may pass after
    a few. ``AFTERWARDS_EXAMPLES=2000`` draws as many, however long they take. Run that before you trust an engine.
    """

    pytestmark = pytest.mark.anyio
    examples: ClassVar[int] = 100
    steps: ClassVar[int] = 40
    seconds: ClassVar[float] = 5

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    def open(self, clock: FakeClock) -> AbstractAsyncContextManager[Engine]:
        """Return a new, empty engine that reads the clock. Leaving the context removes it."""
        raise NotImplementedError("open your engine here")

    def reference(self, clock: FakeClock) -> Engine:
        """Return the engine to compare with."""
        return MemoryEngine(clock=clock)

    async def test_whatever_is_done_leaves_what_it_leaves_in_memory(self) -> None:
        for seed in self._seeds():
            random = Random(seed)
            steps = [any_step(random) for _ in range(self.steps)]
            if await self._difference(steps) is not None:
                shortest = await self._with_shorter_lists(await self._shortened(steps))
                shown, found = "\n".join(map(str, shortest)), await self._difference(shortest)
                raise AssertionError(f"seed {seed} differs after\n{shown}\n\n{found}") from found

    def _seeds(self) -> Iterator[int]:
        if wanted := os.environ.get("AFTERWARDS_EXAMPLES"):
            yield from range(int(wanted))
            return
        end = time.monotonic() + self.seconds
        for seed in range(self.examples):
            yield seed
            if time.monotonic() > end:
                return

    async def _difference(self, steps: Sequence[Step]) -> Exception | None:
        clock = FakeClock()
        async with self.open(clock) as engine:
            world = World(engine, self.reference(clock), clock)
            try:
                for step in steps:
                    await step.take(world)
            except Exception as difference:  # the engine in memory raises nothing here, whatever this one raises
                return difference
        return None

    async def _shortened(self, steps: Sequence[Step]) -> list[Step]:
        """Leave out steps that the difference does not need: first halves, then single steps."""
        kept = list(steps)
        size = len(kept)
        while size := size // 2:
            for start in reversed(range(0, len(kept), size)):
                fewer = kept[:start] + kept[start + size :]
                if await self._difference(fewer) is not None:
                    kept = fewer
        return kept

    async def _with_shorter_lists(self, steps: Sequence[Step]) -> list[Step]:
        """Leave out the calls and numbers of a step that the difference does not need."""
        kept = list(steps)
        lists = [
            (number, name)
            for number, step in enumerate(kept)
            for name, value in step.arguments.items()
            if isinstance(value, list)
        ]
        for number, name in lists:
            for index in reversed(range(len(kept[number].arguments[name]))):
                fewer = [*kept[:number], kept[number].without(name, index), *kept[number + 1 :]]
                if await self._difference(fewer) is not None:
                    kept = fewer
        return kept
