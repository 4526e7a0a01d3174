"""Find out whether the application has set OpenTelemetry's global providers. Without them nothing is recorded."""

import sys
from typing import Any


def has_tracer() -> bool:
    """Return True if the application has set a tracer provider. Until then, the API's is a placeholder."""
    trace: Any = sys.modules.get("opentelemetry.trace")  # loaded by any application that traces
    return trace is not None and not _is_placeholder(trace.get_tracer_provider())


def has_meter() -> bool:
    """Return True if the application has set a meter provider."""
    metrics: Any = sys.modules.get("opentelemetry.metrics")  # as above
    return metrics is not None and not _is_placeholder(metrics.get_meter_provider())


def _is_placeholder(provider: object) -> bool:
    """Return True for a provider that the API itself brings: those of the SDK and of others are elsewhere."""
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))
