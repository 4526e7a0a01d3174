"""Find out whether the application has set OpenTelemetry's global providers. Without them nothing is recorded.

The API's own functions read the environment each time, which costs more than all else that is done for an attempt. So
its variables are read first; a version that has others is asked by its functions.
"""

import sys
from typing import Any

_UNKNOWN = object()


def has_tracer() -> bool:
    """Return True if the application has set a tracer provider. Until then, the API's is a placeholder."""
    trace: Any = sys.modules.get("opentelemetry.trace")  # loaded by any application that traces
    if trace is None or (known := getattr(trace, "_TRACER_PROVIDER", _UNKNOWN)) is None:
        return False
    return known is not _UNKNOWN or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def has_meter() -> bool:
    """Return True if the application has set a meter provider."""
    metrics: Any = sys.modules.get("opentelemetry.metrics")  # as above
    if metrics is None:
        return False
    internal = sys.modules.get("opentelemetry.metrics._internal")
    if (known := getattr(internal, "_METER_PROVIDER", _UNKNOWN)) is None:
        return False
    return known is not _UNKNOWN or type(metrics.get_meter_provider()).__name__ != "_ProxyMeterProvider"
