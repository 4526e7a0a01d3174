"""Lend the slot and the thread of an attempt that waits for another task, which may need them to begin."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from afterwards.execution.threads import Threads
from afterwards.worker.leased_task import LeasedTask
from afterwards.worker.slots import Slots
from afterwards.worker.spawner import Spawner


class Filler(Protocol):
    """Starts tasks in free slots."""

    def fill(self) -> None: ...


@dataclass(slots=True)
class _Loan:
    """The slot, and possibly the thread, that one attempt lends while it waits for results."""

    slot: bool
    thread: bool  # replaces the thread in which it waits
    waits: int = 1  # number of results that it waits for


class Lending:
    """The loans of the attempts of one worker."""

    def __init__(self, slots: Slots[Any], threads: Threads, spawner: Spawner, filler: Filler) -> None:
        self._slots = slots
        self._threads = threads
        self._spawner = spawner
        self._filler = filler
        self._loans: dict[LeasedTask, _Loan] = {}

    @contextmanager
    def lending(self, leased: LeasedTask) -> Iterator[None]:
        """Lend the slot inside the block. Any event loop may enter it: a function may run one in its thread."""
        loop = self._spawner.loop
        here = asyncio.get_running_loop() is loop
        change = (lambda do: do()) if here else loop.call_soon_threadsafe
        change(partial(self._lend, leased))
        try:
            yield
        finally:
            with suppress(RuntimeError):  # the loop is closed
                change(partial(self._take_back, leased))

    def end(self, leased: LeasedTask) -> None:
        """Take back what an attempt lent, now that it has ended; nothing of it waits any more."""
        if loan := self._loans.get(leased):
            loan.waits = 1
            self._take_back(leased)

    def _lend(self, leased: LeasedTask) -> None:
        if leased.ended:
            return
        if loan := self._loans.get(leased):
            loan.waits += 1
            return
        loan = self._loans[leased] = _Loan(slot=self._slots.lend(), thread=leased.in_thread)
        if loan.thread:
            self._threads.allow_one_more()
        self._filler.fill()

    def _take_back(self, leased: LeasedTask) -> None:
        loan = self._loans.get(leased)
        if loan is None:  # the attempt has ended, which returned the loan
            return
        loan.waits -= 1
        if loan.waits == 0:
            del self._loans[leased]
            self._slots.take_back(lent=loan.slot)
            if loan.thread:
                self._threads.allow_one_less()
