"""The answers of the API, as its OpenAPI describes them."""

from dataclasses import fields
from datetime import datetime
from typing import Any, get_type_hints

from pydantic import BaseModel, Field, create_model

from afterwards.core.record import TaskRecord
from afterwards.core.routing import LiveWorker
from afterwards.core.task import State
from afterwards.dashboard.throughput import Span


class Records(BaseModel):
    """A page of a list, the newest tasks first."""

    tasks: list[TaskRecord]
    next: str | None = Field(description="Give it as `before` for the next page; null at the end")


def _described(kind: type, **more: Any) -> type[BaseModel]:
    """Return a model with the fields of a dataclass."""
    hints = get_type_hints(kind)
    same: dict[str, Any] = {one.name: (hints[one.name], ...) for one in fields(kind)}
    return create_model(kind.__name__, __doc__=kind.__doc__, **{**same, **more})


Worker = _described(
    LiveWorker,
    lag=(float | None, Field(description="Seconds that its event loop was late at most since its last sign of life")),
    alive=(bool, Field(description="It was seen lately, and has not shut down")),
)

Workers = create_model(
    "Workers",
    __doc__="The workers of the last day, by start.",
    workers=(list[Worker], ...),  # type: ignore[valid-type]  # a value here, made above
)


class Count(BaseModel):
    """The number of tasks that match, counted up to 100,000."""

    count: int


class Changed(BaseModel):
    """The number of tasks that were changed. Others were not in a state that permits it."""

    changed: int


class QueueCounts(BaseModel):
    """A queue that has tasks, or is paused."""

    queue: str
    paused: bool
    states: dict[State, int]


class Queues(BaseModel):
    """All queues, by name."""

    queues: list[QueueCounts]


class Numbers(BaseModel):
    """How many tasks there are in each state, and how long the longest waiting has waited."""

    states: dict[State, int]
    oldest: float | None = Field(description="Seconds since the first claimable task became claimable; null: none is")


class Step(BaseModel):
    """The attempts that ended within one step of time."""

    at: datetime
    succeeded: int
    failed: int
    retried: int


class Steps(BaseModel):
    """The ended attempts of a span, the oldest step first."""

    span: Span
    step: float = Field(description="Seconds")
    steps: list[Step]


class Schedule(BaseModel):
    """The schedule of a task function."""

    name: str
    expression: str
    tz: str | None
    next_fire: datetime | None = Field(description="null while it is paused, or if this process does not know it")
    last_fire: datetime | None
    paused: bool


class Schedules(BaseModel):
    """All schedules, by name."""

    schedules: list[Schedule]


class PausedNow(BaseModel):
    """Everything that is paused."""

    queues: list[str]
    names: list[str]
    schedules: list[str]


class Problem(BaseModel):
    """Where a request is wrong."""

    type: str
    loc: list[str | int]
    msg: str


class Unprocessable(BaseModel):
    """The answer to a request that is wrong."""

    detail: list[Problem]


class Refused(BaseModel):
    """The answer to a request that is not served."""

    detail: str
