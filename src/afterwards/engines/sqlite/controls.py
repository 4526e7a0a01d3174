"""The part of the engine that people use, to query, stop and start tasks by hand."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from afterwards.core.tallies import Tally
from afterwards.core.task import Task
from afterwards.engine import Paused, Query, Stats
from afterwards.engines import searching as pieces
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.io.opening import OpenedFile
from afterwards.engines.sqlite.io.operation import ConditionalOperation
from afterwards.engines.sqlite.operations import (
    files,
    finishing,
    pausing,
    pruning,
    reading,
    registration,
    searching,
    set_aside,
    successors,
)
from afterwards.engines.sqlite.operations.finishing import Piece

MOST_CHANGED = 100
"""Tasks that one transaction cancels, requeues or starts, so that none takes long."""

MOST_PRUNED = 500
"""Rows that one transaction deletes, so that none takes long."""


class Controls(OpenedFile):
    """The methods for people."""

    async def get(self, ids: Sequence[str]) -> list[Task]:
        return await self._here().reader.call(partial(reading.get, ids=ids)) if ids else []

    async def find(self, query: Query) -> list[Task]:
        return await pieces.find(
            query, lambda left, below: self._here().reader.call(partial(searching.find, query=left, below=below))
        )

    async def stats(self) -> Stats:
        return await self._here().reader.call(reading.stats)

    async def count(self, query: Query) -> int:
        return await pieces.count(
            query, lambda left, below: self._here().reader.call(partial(searching.count, query=left, below=below))
        )

    async def tallies(self, since: timedelta, step: timedelta) -> list[Tally]:
        return await self._here().reader.call(partial(reading.tallies, since=since, step=step))

    async def cancel(self, ids: Sequence[str], reason: str) -> list[Task]:
        await self._in_pieces(ids, lambda some: partial(finishing.cancel, ids=some, reason=reason))
        return await self.get(ids)

    async def requeue(self, ids: Sequence[str]) -> list[Task]:
        ordered = await self._in_the_order_stored(ids)
        return await self._in_pieces(ordered, lambda some: partial(finishing.requeue, ids=some))

    async def start_now(self, ids: Sequence[str]) -> list[Task]:
        ordered = await self._in_the_order_stored(ids)
        return await self._in_pieces(ordered, lambda some: partial(finishing.start_now, ids=some))

    async def delete(self, ids: Sequence[str]) -> list[str]:
        ordered = await self._in_the_order_stored(ids)
        while ordered and await self._go_on_behind():  # tasks are kept until those behind them are decided on
            pass
        deleted: list[str] = []
        for start in range(0, len(ordered), MOST_PRUNED):
            some = ordered[start : start + MOST_PRUNED]
            deleted += await self._here().writer.call(partial(pruning.delete, ids=some))
        if deleted:
            await self._delete_files_over()
        return deleted

    async def prune(self, limit: int) -> int:
        """Run several transactions if there are many, so that other calls get their turn."""
        pruned = 0
        while pruned < limit:
            some = min(limit - pruned, MOST_PRUNED)
            prune = ConditionalOperation(partial(pruning.prune, limit=some), needed=pruning.is_any_over, otherwise=0)
            count = await self._here().writer.ask(prune)
            pruned += count
            if count < some:
                break
        await self._delete_files_over()
        for function, needed in (
            (set_aside.put_odd, set_aside.is_any_odd),
            (registration.forget, registration.is_any_forgotten),
            (pruning.delete_old_tallies, pruning.is_any_tally_old),
            (pruning.delete_old_dispatches, pruning.is_any_dispatch_old),
        ):
            await self._here().writer.ask(ConditionalOperation(function, needed=needed, otherwise=None))
        return pruned

    async def pause(self, paused: Paused) -> None:
        await self._here().writer.call(partial(pausing.pause, paused=paused))

    async def resume(self, paused: Paused) -> None:
        await self._here().writer.call(partial(pausing.resume, paused=paused))

    async def paused(self) -> Paused:
        return await self._here().reader.call(pausing.paused)

    async def _in_the_order_stored(self, ids: Sequence[str]) -> list[str]:
        return await self._here().reader.call(partial(reading.in_the_order_stored, ids=ids)) if ids else []

    async def _in_pieces(
        self, ids: Sequence[str], change: Callable[[Sequence[str]], Callable[[Connection], Piece]]
    ) -> list[Task]:
        """Run several transactions if there are many, so that other calls get their turn. Returns the changed tasks."""
        changed: list[Task] = []
        left = ids
        while left:
            piece = await self._here().writer.call(change(left[:MOST_CHANGED]))
            changed += piece.changed
            left = left[piece.done :]
            while piece.left_behind and await self._go_on_behind():
                pass
        return changed

    async def _go_on_behind(self) -> bool:
        """Decide on remaining tasks behind others. Returns True if more are left."""
        return await self._here().writer.ask(successors.GoOn())

    async def _delete_files_over(self) -> None:
        """Run several transactions if there are many, so that other calls get their turn."""
        while await self._here().writer.ask(
            ConditionalOperation(files.delete_some, needed=files.is_any_over, otherwise=False)
        ):
            pass
