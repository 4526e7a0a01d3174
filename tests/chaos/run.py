"""One run: an application under load is troubled again and again, and left to finish; then the judge is asked."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from random import Random

from afterwards.core.task import Task
from afterwards.engine import Engine, Query
from afterwards.engines import shared
from afterwards.telemetry.worker import INTERNAL_ERROR
from chaos import celery_fleet, history
from chaos.checker import Evidence, Position, Recovery, Violation, check, given_up
from chaos.hosts import Hosts
from chaos.load import PAUSE, Load
from chaos.pulse import Pulse
from chaos.stores import Store, open_store
from chaos.troubles import Trouble, Troubles, cause
from servers.process import ServerProcess

PAGE = 1000
FLEETS_WORKERS = 2  # Celery workers, with two processes each
FLEETS_PAUSE = 0.6  # seconds at most between two requests of a client: each task has a message
TIMEOUT = 240  # seconds that everything may take to finish after the last trouble
OWN_ERRORS = (INTERNAL_ERROR, "never retrieved", "Exception in", "SystemError", "malformed")
LONGEST_ANSWER = 30.0
"""Seconds within which every request has its answer while a server lives. Starting that server is included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What shall happen. The seed decides what is sent and what happens when, as far as a machine repeats itself."""

    seed: int
    engine: str  # sqlite or postgres
    troubles: Troubles
    workers: int  # as in `uvicorn --workers`
    folder: Path
    hold: float | None = None  # seconds after which tasks start whose request never ended; None: as the library says
    lease: float | None = None  # seconds; None: as the library says
    fleet: str | None = None  # celery+amqp or celery+redis: Celery workers run the tasks
    timed: bool = True  # whether it is a violation that work goes on late: not on a machine that is busy with others


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of it."""

    plan: Plan
    requests: int
    unanswered: int
    refused: int
    acknowledged: int  # tasks
    longest_answer: float
    records: tuple[Task, ...]
    recoveries: tuple[Recovery, ...]
    violations: tuple[Violation, ...]
    settled_in: float  # seconds from the last trouble until everything had finished

    @property
    def crashes(self) -> int:
        """Attempts that ended with their process, or whose lease was lost."""
        return sum(failure.kind == "crashed" for record in self.records for failure in record.failures)

    def broken(self, rule: str) -> int:
        return sum(violation.rule == rule for violation in self.violations)

    def __str__(self) -> str:
        return (
            f"{self._where}, {self.plan.troubles}, {self.plan.workers} server processes, seed {self.plan.seed}: "
            f"{self.requests} requests ({self.refused} answered 503, {self.unanswered} without an answer, slowest in "
            f"{self.longest_answer:.1f} s), {self.acknowledged} tasks acknowledged, {len(self.records)} on record, "
            f"{self.crashes} attempts lost, {len(given_up(self.records))} given up after three crashes; "
            f"{self.broken('lost')} lost, {self.broken('doubled')} doubled, "
            f"{len(self.violations)} broken promises{self._recoveries()}; "
            f"finished {self.settled_in:.1f} s after the last trouble"
        )

    @property
    def _where(self) -> str:
        return ", ".join(filter(None, (self.plan.engine, self.plan.fleet)))

    def _recoveries(self) -> str:
        longest: dict[str, float] = {}
        for one in self.recoveries:
            longest[one.after] = max(longest.get(one.after, 0), one.seconds)
        numbers = Counter(one.after for one in self.recoveries)
        return "".join(
            f"; went on after {numbers[what]} times {what} within {seconds:.1f} s"
            for what, seconds in sorted(longest.items())
        )


def run(plan: Plan, say: Callable[[str], None] = lambda line: None) -> Report:
    """Trouble as planned. Raises TimeoutError when work does not go on at all."""
    random = Random(plan.seed)
    recoveries: list[Recovery] = []
    with (
        open_store(plan.engine, plan.folder, plan.seed) as store,
        celery_fleet.a_broker(plan.fleet) as broker,
        _hosts(plan, store, broker) as hosts,
    ):
        with Load(hosts.port, seed=str(plan.seed), pause=FLEETS_PAUSE if plan.fleet else PAUSE) as load:
            load.wait_for_answers()
            pulse = Pulse(load, plan.folder / "history", hosts)
            for number, trouble in enumerate(plan.troubles.drawn(random), 1):
                recoveries += _cause(plan, trouble, store, broker, hosts, pulse, random)
                if number % 20 == 0:
                    say(f"{number} of {plan.troubles.total}: {load.acknowledged} requests acknowledged")
            over_at = time.monotonic()
            pulse.goes_on()
        hosts.end_serving()
        asyncio.run(_all_finished(store.url))
        settled_in = time.monotonic() - over_at
        hosts.stop()
        evidence = gather(plan, load, hosts.log(), store, recoveries)
    return _report(plan, evidence, settled_in)


def gather(plan: Plan, load: Load, log: str, store: Store, recoveries: Sequence[Recovery]) -> Evidence:
    """Everything that is left, now that no process of the application runs any more."""
    (plan.folder / "store.log").write_text(store.log())
    with (plan.folder / "requests.jsonl").open("w") as file:
        file.writelines(f"{json.dumps(asdict(sent))}\n" for sent in load.sent)
    promised = [id for sent in load.sent for id in sent.ids or ()]
    records, aliases = asyncio.run(_records(store.url, promised))
    return Evidence(
        sent=load.sent,
        effects=history.read(plan.folder / "history"),
        records=records,
        calls={record.id: _call(record) for record in records},
        aliases=aliases,
        answers_are_lost=store.is_remote,
        recoveries=recoveries,
        longest_answer=LONGEST_ANSWER if plan.timed else None,
        integrity=store.integrity(),
        complaints=[line for line in log.splitlines() if any(words in line for words in OWN_ERRORS)],
        fail_on_purpose=frozenset({"never"}),
    )


def _report(plan: Plan, evidence: Evidence, settled_in: float) -> Report:
    return Report(
        plan=plan,
        requests=len(evidence.sent),
        unanswered=sum(sent.status is None for sent in evidence.sent),
        refused=sum(sent.status == 503 for sent in evidence.sent),
        acknowledged=sum(len(sent.ids or ()) for sent in evidence.sent),
        longest_answer=max(sent.seconds for sent in evidence.sent),
        records=tuple(evidence.records),
        recoveries=tuple(evidence.recoveries),
        violations=tuple(check(evidence)),
        settled_in=settled_in,
    )


def _cause(
    plan: Plan,
    trouble: Trouble,
    store: Store,
    broker: ServerProcess | None,
    hosts: Hosts,
    pulse: Pulse,
    random: Random,
) -> list[Recovery]:
    """Cause one trouble, see it end, and see that work goes on without a hand."""
    over = cause(trouble, store, broker, hosts, pulse, random)
    if over is None:
        return []
    at_most = trouble.patience if plan.timed else inf
    return [Recovery(after=trouble.value, seconds=pulse.goes_on(since=over), at_most=at_most)]


def _hosts(plan: Plan, store: Store, broker: ServerProcess | None) -> Hosts:
    environment = {"CHAOS_HISTORY": str(plan.folder / "history"), "AFTERWARDS_URL": store.url_through_proxy}
    if plan.hold is not None:
        environment["CHAOS_HOLD"] = str(plan.hold)
    if plan.lease is not None:
        environment["CHAOS_LEASE"] = str(plan.lease)
    if broker is not None:
        environment |= {"CHAOS_BROKER": broker.url, "C_FORCE_ROOT": "1"}
    return Hosts(
        "chaos.apps.orders:app",
        folder=plan.folder,
        workers=plan.workers,
        worker_only=store.is_remote and broker is None,
        environment=environment,
        fleet=0 if broker is None else FLEETS_WORKERS,
    )


async def _all_finished(url: str) -> None:
    """Wait for the end of all tasks, as long as that may take: the judge says what has not finished."""
    async with shared(url) as engine:
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline and await _unfinished(engine):  # noqa: ASYNC110 (other processes do it)
            await asyncio.sleep(0.1)


async def _unfinished(engine: Engine) -> bool:
    return not all(state.finished for _, state in (await engine.stats()).counts)


async def _records(url: str, promised: Sequence[str]) -> tuple[list[Task], dict[str, str]]:
    """Return all records, and for each promised id that is no record's the one that stands for it."""
    async with shared(url) as engine:
        records = await engine.find(Query(limit=PAGE))
        while page := await engine.find(Query(limit=PAGE, before=records[-1].id)):
            records += page
        known = {record.id for record in records}
        others = [id for id in dict.fromkeys(promised) if id not in known]
        answers = [(id, await engine.get([id])) for id in others]  # one at a time: no answer says which id it is for
    return records, {id: task.id for id, tasks in answers for task in tasks}


def _call(record: Task) -> Position:
    arguments = json.loads(record.arguments)
    return arguments["order"], arguments["position"]
