"""Find out whether the application has set OpenTelemetry's global providers. Without them nothing is recorded."""

import sys
from time import monotonic
from typing import Any

ASK_EVERY = 0.001
"""Seconds for which a provider that was missing is taken to be missing. The API reads the environment each time that
it is asked, and each task would ask several times."""


class _Provider:
    """A global provider that the application may set, once, at any time."""

    def __init__(self, module: str, getter: str) -> None:
        self._module = module
        self._getter = getter
        self._ask_at = 0.0

    def is_set(self) -> bool:
        api: Any = sys.modules.get(self._module)  # loaded by any application that uses it
        if api is None or (now := monotonic()) < self._ask_at:
            return False
        if _is_placeholder(getattr(api, self._getter)()):
            self._ask_at = now + ASK_EVERY
            return False
        return True


def _is_placeholder(provider: object) -> bool:
    """Return True for a provider that the API itself brings: those of the SDK and of others are elsewhere."""
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


has_tracer = _Provider("opentelemetry.trace", "get_tracer_provider").is_set
"""Return True if the application has set a tracer provider. Until then, the API's is a placeholder."""

has_meter = _Provider("opentelemetry.metrics", "get_meter_provider").is_set
"""Return True if the application has set a meter provider."""
