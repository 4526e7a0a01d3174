"""What helps to test: an application's tasks, and engines by the suite that each of them passes."""

from afterwards.testing.inline import assert_enqueued, drain, drain_async

__all__ = ["assert_enqueued", "drain", "drain_async"]
