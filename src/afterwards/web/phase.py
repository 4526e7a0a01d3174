"""The phase of a request, from the view of its BackgroundTasks."""

from enum import Enum, auto


class Phase(Enum):
    """Decides what happens to a call when it is added."""

    HANDLING = auto()
    """The handler runs, or the object was not injected: calls wait for the flush."""
    CONVERSING = auto()
    """The handler of a websocket runs: its response has begun, so calls are stored at once."""
    RETURNED = auto()
    """The handler has returned: calls are stored at once, plain tasks run behind those that FastAPI has."""
    REFUSED = auto()
    """The handler raised, or its tasks could not be stored: calls are stored at once, plain tasks never run."""
