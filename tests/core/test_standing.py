"""Where an unfinished task stands, in words."""

from datetime import UTC, datetime
from typing import Any

import pytest

from afterwards.core.claim import Paused
from afterwards.core.routing import LiveWorker
from afterwards.core.standing import standing
from afterwards.core.task import State, Task

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
WORKER = LiveWorker(id="w", host="h", pid="1", started_at=NOW, names=frozenset({"send"}))
LEFT = LiveWorker(id="x", host="h", pid="1", started_at=NOW, names=frozenset({"send"}), has_left=True)


@pytest.mark.parametrize(
    ("fields", "paused", "workers", "said"),
    [
        ({}, Paused(), [], "is queued, and no worker lives"),
        ({}, Paused(), [LEFT], "is queued, and no worker lives"),
        ({}, Paused(), [WORKER, LEFT], "is queued, and waits for a free slot of a worker"),
        ({"name": "other"}, Paused(), [WORKER], "is queued, and no live worker knows it"),
        ({}, Paused(names=frozenset({"send"})), [WORKER], "is queued, and send is paused"),
        ({}, Paused(queues=frozenset({"default"})), [WORKER], "is queued, and its queue default is paused"),
        ({"set_aside": "unfit"}, Paused(), [WORKER], "is queued and set aside: unfit"),
        ({"state": State.WAITING, "after": "7f3"}, Paused(), [], "is waiting until task 7f3 has succeeded"),
        ({"state": State.SCHEDULED, "run_at": NOW}, Paused(), [], "is scheduled until 2026-01-31 12:00:00 UTC"),
        (
            {"state": State.SCHEDULED, "failed": 1},
            Paused(),
            [],
            "is scheduled for another attempt after a failure, until its time",
        ),
        (
            {"state": State.RUNNING, "started_at": NOW, "attempt": 2},
            Paused(),
            [],
            "is running, since 2026-01-31 12:00:00 UTC in attempt 2",
        ),
        (
            {"state": State.RUNNING, "started_at": NOW, "attempt": 1, "cancel_requested": "no"},
            Paused(),
            [],
            "is running, since 2026-01-31 12:00:00 UTC in attempt 1, and was asked to stop",
        ),
    ],
)
def test_it_says_what_the_task_waits_for(
    fields: dict[str, Any], paused: Paused, workers: list[LiveWorker], said: str
) -> None:
    kept: dict[str, Any] = {"id": "1", "name": "send", "arguments": "{}", "created_at": NOW, "state": State.QUEUED}
    assert standing(Task(**kept | fields), paused, workers) == said
