"""Compare an engine with the one in memory after the same operations.

Steps are drawn at random, from a seed. They name tasks and attempts by number among those that exist at that time, so
that late workers and repeated calls come up by themselves. A difference is shown as a short list of steps that leads to
it.
"""

from afterwards.testing.conformance.generated.asked import Asked
from afterwards.testing.conformance.generated.difference import difference
from afterwards.testing.conformance.generated.suite import GeneratedConformance

__all__ = ["Asked", "GeneratedConformance", "difference"]
