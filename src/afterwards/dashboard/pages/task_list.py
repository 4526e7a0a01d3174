"""The list of tasks: one page of those that a filter names, and how many there are in each state."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf

from afterwards.client.steering import Page, continued, counted
from afterwards.core.record import TaskRecord
from afterwards.core.task import State
from afterwards.dashboard.pages.acts import ActWords, acts_in
from afterwards.dashboard.pages.questions import SPANS, Question
from afterwards.engine import Engine
from afterwards.tasks.registry import registry

ON_A_PAGE = 50

MOST_COUNTED = 1000
"""Tasks that match a filter are counted up to this number for the tabs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskListPage:
    """The values for the template."""

    question: Question
    tasks: list[TaskRecord]
    next: str | None
    first: bool  # this is the newest page
    counts: Mapping[State, int] | None  # None: they are not counted, as each would read all tasks
    counted_to: int | None  # counts end at this number; None: they are complete
    names: list[str]  # suggestions

    @property
    def states(self) -> list[State]:
        return list(State)

    @property
    def spans(self) -> list[str]:
        return list(SPANS)

    @property
    def acts(self) -> list[ActWords]:
        return acts_in(self.question.state)

    @property
    def total(self) -> int | None:
        """The number of tasks that match, on all pages; None if it is not counted."""
        if self.counts is None:
            return None
        return sum(self.counts.values()) if self.question.state is None else self.counts.get(self.question.state, 0)

    @property
    def total_is_open(self) -> bool:
        return any(count >= (self.counted_to or inf) for count in (self.counts or {}).values())


async def task_list_page(engine: Engine, now: datetime, question: Question, before: str | None) -> TaskListPage:
    """Read the page: two calls of the engine; eight with a filter by function or time."""
    found: Page = await continued(engine, question.filter(now), limit=ON_A_PAGE, before=before)
    return TaskListPage(
        question=question,
        tasks=[TaskRecord.of(task, shown=True) for task in found.tasks],
        next=found.next,
        first=before is None,
        counts=await _counts(engine, now, question),
        counted_to=MOST_COUNTED if _must_count(question) else None,
        names=sorted(function.name for function in registry),
    )


def _must_count(question: Question) -> bool:
    """Return True unless the engine's own counts, by queue and state, tell the numbers."""
    return bool(question.fields().keys() - {"state", "queue"})


async def _counts(engine: Engine, now: datetime, question: Question) -> dict[State, int] | None:
    if question.text:
        return None
    if _must_count(question):
        return {state: await counted(engine, question.at(state).filter(now), most=MOST_COUNTED) for state in State}
    counts: Counter[State] = Counter()
    for (queue, state), count in (await engine.stats()).counts.items():
        if question.queue in ("", queue):
            counts[state] += count
    return dict(counts)
