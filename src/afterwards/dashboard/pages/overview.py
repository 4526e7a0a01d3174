"""The first page: what has ended, what waits, who works, and what failed last."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from afterwards.core.record import TaskRecord
from afterwards.core.routing import UNROUTABLE_AFTER, Unroutable
from afterwards.core.task import PENDING, State
from afterwards.dashboard.charts import TITLES, Chart, chart
from afterwards.dashboard.throughput import Span, throughput
from afterwards.engine import Engine, Paused, Query
from afterwards.worker.live_processes import live_workers

LAST_FAILED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewPage:
    """The values for the template."""

    chart: Chart
    counts: Mapping[State, int]
    oldest: timedelta | None
    workers: int
    paused: Paused
    unroutable: list[Unroutable]
    failed: list[TaskRecord]

    @property
    def spans(self) -> dict[Span, str]:
        return TITLES

    @property
    def backlog(self) -> int:
        return sum(self.counts.get(state, 0) for state in PENDING)

    @property
    def empty(self) -> bool:
        return not self.counts and not any(self.chart.total)


async def overview_page(engine: Engine, now: datetime, span: Span) -> OverviewPage:
    """Read the page: six calls of the engine, however many tasks it has."""
    stats = await engine.stats()
    failed = await engine.find(Query(states=frozenset({State.FAILED}), limit=LAST_FAILED))
    return OverviewPage(
        chart=chart(await throughput(engine, span, now)),
        counts=stats.by_state,
        oldest=stats.oldest,
        workers=len(await live_workers(engine)),
        paused=await engine.paused(),
        unroutable=await engine.unroutable(UNROUTABLE_AFTER),
        failed=[TaskRecord.of(task, shown=True) for task in failed],
    )
