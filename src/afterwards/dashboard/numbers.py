"""The numbers of tasks, as the API and the stream give them."""

from collections import Counter
from typing import Any

from afterwards.core.task import State
from afterwards.engine import Stats


def of(stats: Stats) -> dict[str, Any]:
    """Return the number of tasks in each state, and the seconds that the longest waiting has waited."""
    counts: Counter[State] = Counter()
    for (_, state), count in stats.counts.items():
        counts[state] += count
    return {
        "states": {state.value: counts[state] for state in State},
        "oldest": None if stats.oldest is None else stats.oldest.total_seconds(),
    }
