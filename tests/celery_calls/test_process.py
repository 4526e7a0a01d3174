"""Our part of a process of Celery's, which ends in one thread while others run and drain."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from afterwards.dispatch.celery.process import Process


class Left:
    """A runtime that has ended: it runs nothing."""

    def run(self, lease: object) -> bool:
        return False

    def drain(self, times: int) -> None: ...


class EndsMeanwhile(Process):
    """A process that another thread ends between two looks at its runtime."""

    looks = 0

    @property
    def _runtime(self) -> Any:
        self.looks += 1
        return Left() if self.looks == 1 else None

    @_runtime.setter
    def _runtime(self, runtime: Any) -> None: ...


def run(process: Process) -> None:
    process.run((str(uuid4()), 1), {})


@pytest.mark.parametrize("act", [run, Process.drain])
def test_it_may_end_while_another_thread_asks_it(act: Callable[[Process], None]) -> None:
    process = EndsMeanwhile(lambda **_: None)  # type: ignore[arg-type, return-value]
    act(process)
    assert process.looks == 1
