"""Calls that the tests of the PostgreSQL engine make."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from afterwards.core.retry import Retry
from afterwards.core.settling import Settled, Succeeded, settle
from afterwards.core.task import NewTask, Task, task_id
from afterwards.engine import Claim

LEASE = timedelta(minutes=10)


def new(**fields: Any) -> NewTask:
    return NewTask(**{"id": task_id(datetime.now(UTC), os.urandom(10)), "name": "greet", "arguments": "{}"} | fields)


def claim(limit: int = 10, **fields: Any) -> Claim:
    return Claim(**{"worker": "w", "limit": limit, "lease": LEASE, "names": frozenset({"greet"})} | fields)


def end(task: Task, outcome: Any = None) -> Settled:
    return settle(task, outcome or Succeeded(), Retry(0), worker="w", now=datetime.now(UTC), random=0.5)
