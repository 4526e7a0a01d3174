"""What a run comes to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All that can be told of a run from outside."""

    events: Sequence[str]  # in the server, in order
    answers: Sequence[dict[str, Any]]  # what the client saw, in order
    complaints: Sequence[str]  # warnings and worse; each once
    openapi: dict[str, Any] | None
    log: str = field(compare=False, repr=False)  # the complaints as they were worded, for who looks into a failure
