"""Process-wide state, and the one way to reset it between tests."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


class ProcessState:
    """Base class of process-wide singletons. It is made without arguments; its attributes are the state."""

    @contextmanager
    def afresh(self) -> Iterator[None]:
        """Hold the state of a new process inside the block, and restore the former state afterwards."""
        before = self.__dict__
        self.__dict__ = {}
        self.__init__()  # type: ignore[misc]  # no subclass takes arguments
        try:
            yield
        finally:
            self.__dict__ = before


@contextmanager
def afresh(*states: ProcessState) -> Iterator[None]:
    """Reset several objects inside the block, and restore them afterwards."""
    with ExitStack() as stack:
        for state in states:
            stack.enter_context(state.afresh())
        yield
