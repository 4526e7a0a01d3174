"""What helps to test: an application's tasks, and engines by the suite that each of them passes."""

from afterwards.testing.crashes import Crash, crash_at, run_twice
from afterwards.testing.draining import drain, drain_async, fire_schedules, fire_schedules_async
from afterwards.testing.enqueued import assert_enqueued, assert_not_enqueued
from afterwards.testing.inline import allow_retries, clock

__all__ = [
    "Crash",
    "allow_retries",
    "assert_enqueued",
    "assert_not_enqueued",
    "clock",
    "crash_at",
    "drain",
    "drain_async",
    "fire_schedules",
    "fire_schedules_async",
    "run_twice",
]
