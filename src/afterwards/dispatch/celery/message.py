"""The message of the one Celery task: which attempt of which task may start."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from afterwards.core.task import Lease

NAME = "afterwards.run"
"""The name of our task in Celery. Processes of two versions share it, so it stays as it is."""

MOST_ATTEMPTS = 2**31
LONGEST_ID = 64


def arguments_of(lease: Lease) -> tuple[str, int]:
    """Return the arguments of the Celery task."""
    return lease.task_id, lease.attempt


def lease_of(arguments: Sequence[object], named: Mapping[str, object]) -> Lease | None:
    """Return the lease that a message names, or None if no dispatcher of ours wrote it. Brokers are shared."""
    match arguments:
        case [str(task_id), int(attempt)] if not named and not isinstance(attempt, bool):
            return Lease(task_id, attempt) if _is_id(task_id) and 0 < attempt < MOST_ATTEMPTS else None
    return None


def _is_id(text: str) -> bool:
    if len(text) > LONGEST_ID:
        return False
    try:
        return bool(UUID(text))
    except ValueError:
        return False
