"""The part of the engine that people use, to query, stop and start tasks by hand."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

from afterwards.core.tallies import Tally
from afterwards.core.task import Task
from afterwards.engine import Paused, Query, Stats
from afterwards.engines import searching as pieces
from afterwards.engines.opening import OpenedInEachProcess
from afterwards.engines.postgres.opened import Opened
from afterwards.engines.postgres.operations import (
    dispatching,
    files,
    finishing,
    pausing,
    pruning,
    reading,
    registration,
    searching,
    set_aside,
    successors,
    tallying,
)
from afterwards.engines.postgres.operations.finishing import Piece
from afterwards.engines.postgres.work import Operation, Work

R = TypeVar("R")

MOST_CHANGED = 100
"""Tasks that one transaction cancels or requeues, so that none takes long."""

MOST_PRUNED = 500
"""Rows that one transaction deletes, so that none takes long."""

BETWEEN_PIECES = 0.005
"""Seconds between two transactions that decide on tasks behind others."""


class Controls(OpenedInEachProcess[Opened]):
    """The methods of ``Controls`` and two of ``Sender``."""

    async def get(self, ids: Sequence[str]) -> list[Task]:
        return await self._ask(partial(reading.get, ids=ids)) if ids else []

    async def cancel(self, ids: Sequence[str], reason: str) -> list[Task]:
        await self._in_pieces(ids, lambda some: partial(finishing.cancel, ids=some, reason=reason))
        return await self.get(ids)

    async def find(self, query: Query) -> list[Task]:
        return await pieces.find(query, lambda left, below: self._ask(partial(searching.find, query=left, below=below)))

    async def stats(self) -> Stats:
        return await self._read(reading.stats)

    async def count(self, query: Query) -> int:
        return await pieces.count(
            query, lambda left, below: self._ask(partial(searching.count, query=left, below=below))
        )

    async def tallies(self, since: timedelta, step: timedelta) -> list[Tally]:
        return await self._read(partial(tallying.tallies, since=since, step=step))

    async def requeue(self, ids: Sequence[str]) -> list[Task]:
        ordered = await self._in_the_order_stored(ids)
        return await self._in_pieces(ordered, lambda some: partial(finishing.requeue, ids=some))

    async def start_now(self, ids: Sequence[str]) -> list[Task]:
        ordered = await self._in_the_order_stored(ids)
        return await self._in_pieces(ordered, lambda some: partial(finishing.start_now, ids=some))

    async def delete(self, ids: Sequence[str]) -> list[str]:
        ordered = await self._in_the_order_stored(ids)
        if ordered:
            await self._finish_behind()  # a task is not deleted before all those behind it are decided on
        deleted: list[str] = []
        for start in range(0, len(ordered), MOST_PRUNED):
            some = ordered[start : start + MOST_PRUNED]
            deleted += await self._transact(partial(pruning.delete, ids=some))
        if deleted:
            await self._delete_files_over()
        return deleted

    async def prune(self, limit: int) -> int:
        """Run several transactions if there are many, so that other calls get their turn."""
        pruned = 0
        while pruned < limit and await self._read(pruning.is_any_over):
            count = await self._transact(partial(pruning.prune, limit=min(limit - pruned, MOST_PRUNED)))
            pruned += count
            if not count:  # others delete the same ones
                break
        await self._delete_files_over()
        for tidy in (pruning.forget_starts, dispatching.forget, tallying.prune, set_aside.put_odd, registration.forget):
            await self._transact(tidy)
        return pruned

    async def pause(self, paused: Paused) -> None:
        await self._transact(partial(pausing.pause, paused=paused))

    async def resume(self, paused: Paused) -> None:
        await self._transact(partial(pausing.resume, paused=paused))

    async def paused(self) -> Paused:
        return await self._read(pausing.paused)

    async def _transact(self, make: Callable[[Work], Operation[R]]) -> R:
        return await self._here().transact(make)

    async def _read(self, make: Callable[[Work], Operation[R]]) -> R:
        return await self._here().read(make)

    async def _ask(self, question: Callable[[], Operation[R]]) -> R:
        return await self._here().ask(question)

    async def _in_the_order_stored(self, ids: Sequence[str]) -> list[str]:
        return await self._ask(partial(reading.in_the_order_stored, ids=ids)) if ids else []

    async def _in_pieces(
        self, ids: Sequence[str], change: Callable[[Sequence[str]], Callable[[Work], Operation[Piece]]]
    ) -> list[Task]:
        """Run several transactions if there are many, so that other calls get their turn. Returns the changed tasks."""
        changed: list[Task] = []
        left = ids
        while left:
            piece = await self._transact(change(left[:MOST_CHANGED]))
            changed += piece.changed
            left = left[piece.done :]
            if piece.left_behind:
                await self._finish_behind()
        return changed

    async def _finish_behind(self) -> None:
        """Decide on all remaining tasks behind others. Another transaction may be at work on some of them."""
        while await self._go_on_behind():  # noqa: ASYNC110 (other processes do it)
            await asyncio.sleep(BETWEEN_PIECES)

    async def _go_on_behind(self) -> bool:
        """Decide on remaining tasks behind others. Returns True if more are left."""
        return await self._ask(successors.is_any_left) and await self._transact(successors.go_on)

    async def _delete_files_over(self) -> None:
        """Run several transactions if there are many, so that other calls get their turn."""
        while await self._transact(files.delete_some):
            pass
