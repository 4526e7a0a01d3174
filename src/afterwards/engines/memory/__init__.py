"""The engine that keeps tasks in this process."""

from afterwards.engines.memory.engine import MemoryEngine

__all__ = ["MemoryEngine"]
