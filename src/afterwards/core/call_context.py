"""The context in which a call was made, as it is stored with its task: the trace and the context variables, as JSON."""

import json
import re
from collections.abc import Mapping
from typing import Any

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def written_context(trace: Mapping[str, str], variables: Mapping[str, Any]) -> str | None:
    """Return a context as it is stored; None if nothing is in it."""
    return json.dumps({"trace": dict(trace), "variables": dict(variables)}) if trace or variables else None


def read_context(context: str | None) -> dict[str, dict[str, Any]]:
    """Return the parts of a stored context, both empty if it cannot be read."""
    try:
        stored = json.loads(context or "{}")
    except (ValueError, RecursionError):
        stored = {}
    parts = {part: stored.get(part) if isinstance(stored, dict) else None for part in ("trace", "variables")}
    return {part: values if isinstance(values, dict) else {} for part, values in parts.items()}


def with_trace(context: str | None, trace: Mapping[str, str]) -> str | None:
    """Return a stored context with another trace. Without a trace it stays unchanged."""
    return written_context(trace, read_context(context)["variables"]) if trace else context


def trace_id_of(context: str | None) -> str | None:
    """Return the id of the W3C trace in a stored context, 32 hexadecimal digits; None without one.

    >>> trace_id_of('{"trace": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}')
    '0af7651916cd43dd8448eb211c80319c'
    """
    header = read_context(context)["trace"].get("traceparent")
    found = _TRACEPARENT.fullmatch(header) if isinstance(header, str) else None
    return found[1] if found else None
