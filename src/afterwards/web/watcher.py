"""One client's view: the latest state, and whether it has seen it."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Latest(Generic[T]):
    """The latest state of what is watched."""

    value: T


class StoreAway:
    """The store cannot be asked for now. Watching goes on."""


class Quiet:
    """Nothing has changed for a while."""


class Watcher(Generic[T]):
    """One client's view. It holds the latest state only: a slow client skips states, and queues none."""

    def __init__(self, latest: T | None = None) -> None:
        self.ended = asyncio.Event()
        self._latest = latest
        self._away = False
        self._news = asyncio.Event()
        if latest is not None:
            self._news.set()

    def offer(self, latest: T) -> bool:
        """Take the latest state. Return whether it is news."""
        news = self._away or latest != self._latest
        if news:
            self._away, self._latest = False, latest
            self._news.set()
        return news

    def store_away(self) -> None:
        if not self._away:
            self._away = True
            self._news.set()

    def end(self) -> None:
        """End the iteration of ``news``, at once."""
        self.ended.set()
        self._news.set()

    async def news(self, *, quiet: float) -> AsyncGenerator[Latest[T] | StoreAway | Quiet, None]:
        """Yield the latest state whenever it has changed, and Quiet after ``quiet`` seconds without a change."""
        while not self.ended.is_set():
            try:
                async with asyncio.timeout(quiet):
                    await self._news.wait()
            except TimeoutError:
                yield Quiet()
                continue
            self._news.clear()
            if self.ended.is_set():
                return
            if self._away:
                yield StoreAway()
            elif self._latest is not None:
                yield Latest(self._latest)
