"""The numbers of tasks, as the API and the stream give them."""

from typing import Any

from afterwards.core.task import State
from afterwards.engine import Stats


def of(stats: Stats) -> dict[str, Any]:
    """Return the number of tasks in each state, and the seconds that the longest waiting has waited."""
    counts = stats.by_state
    return {
        "states": {state.value: counts.get(state, 0) for state in State},
        "oldest": None if stats.oldest is None else stats.oldest.total_seconds(),
    }
