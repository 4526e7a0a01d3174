"""State that belongs to a whole process, and the one way to start it afresh."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


class ProcessState:
    """Base of the few objects of which a process has one. Made without arguments; its attributes are the state."""

    @contextmanager
    def afresh(self) -> Iterator[None]:
        """Meanwhile hold what a new process would hold: tests are in each other's way otherwise."""
        before = self.__dict__
        self.__dict__ = {}
        self.__init__()  # type: ignore[misc]  # no subclass takes arguments
        try:
            yield
        finally:
            self.__dict__ = before


@contextmanager
def afresh(*states: ProcessState) -> Iterator[None]:
    """Start several afresh, for as long as the block lasts."""
    with ExitStack() as stack:
        for state in states:
            stack.enter_context(state.afresh())
        yield
