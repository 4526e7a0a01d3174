"""Helpers for tests: of an application's tasks (exported here), and of engines (``conformance``)."""

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
