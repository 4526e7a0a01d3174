"""One run: a server under load is killed again and again; then everything is left to finish, and the judge is asked."""

import asyncio
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

from afterwards import Task
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.telemetry.worker import INTERNAL_ERROR
from chaos import history
from chaos.checker import Evidence, Position, Violation, check, given_up
from chaos.load import Load
from chaos.server import Server

LONGEST_LIFE = 0.6  # seconds from the first answer of a server to its death
LONGEST_START = 1.5  # seconds from the start of a server that is killed whether it has answered or not
PAGE = 1000
TIMEOUT = 180  # seconds that everything may take to finish after the last kill
OWN_ERRORS = (INTERNAL_ERROR, "never retrieved", "Exception in", "SystemError", "malformed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What shall happen. The seed decides what is sent and when is killed, as far as a machine repeats itself."""

    seed: int
    kills: int
    workers: int
    folder: Path
    hold: float | None = None  # seconds after which tasks start whose request never ended; None: as the library says


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of it."""

    plan: Plan
    requests: int
    unanswered: int
    acknowledged: int  # tasks
    records: tuple[Task, ...]
    violations: tuple[Violation, ...]
    settled_in: float  # seconds from the last kill until everything had finished

    @property
    def crashes(self) -> int:
        """Attempts that ended with their process."""
        return sum(failure.kind == "crashed" for record in self.records for failure in record.failures)

    @property
    def lost(self) -> int:
        return sum(violation.rule == "lost" for violation in self.violations)

    def __str__(self) -> str:
        return (
            f"{self.plan.kills} kills, {self.plan.workers} worker(s), seed {self.plan.seed}: "
            f"{self.requests} requests ({self.unanswered} without an answer), {self.acknowledged} tasks acknowledged, "
            f"{len(self.records)} on record, {self.crashes} attempts killed, "
            f"{len(given_up(self.records))} given up after three crashes, {self.lost} lost, "
            f"{len(self.violations)} broken promises; finished {self.settled_in:.1f} s after the last kill"
        )


def run(plan: Plan, say: Callable[[str], None] = lambda line: None) -> Report:
    """Kill as planned. Raises TimeoutError when the server does not come back, or does not finish."""
    random = Random(plan.seed)
    with _server(plan) as server:
        with Load(server.port, seed=str(plan.seed)) as load:
            load.wait_for_answers()
            for number in range(1, plan.kills + 1):
                _kill(server, load, random)
                if number % 20 == 0:
                    say(f"{number} kills, {load.acknowledged} requests acknowledged")
            killed_at = time.monotonic()
            load.wait_for_answers()
        asyncio.run(_all_finished(plan.folder / "tasks.db"))
        settled_in = time.monotonic() - killed_at
        server.stop()
    evidence = gather(load, server.log(), plan.folder)
    return Report(
        plan=plan,
        requests=len(evidence.sent),
        unanswered=sum(sent.ids is None for sent in evidence.sent),
        acknowledged=sum(len(sent.ids or ()) for sent in evidence.sent),
        records=tuple(evidence.records),
        violations=tuple(check(evidence)),
        settled_in=settled_in,
    )


def gather(load: Load, log: str, folder: Path) -> Evidence:
    """Everything that is left, now that no server runs any more."""
    records = asyncio.run(_records(folder / "tasks.db"))
    return Evidence(
        sent=load.sent,
        effects=history.read(folder / "history"),
        records=records,
        calls={record.id: _call(record) for record in records},
        integrity=_integrity(folder / "tasks.db"),
        complaints=[line for line in log.splitlines() if any(words in line for words in OWN_ERRORS)],
        fail_on_purpose=frozenset({"never"}),
    )


def _server(plan: Plan) -> Server:
    environment = {"CHAOS_DATABASE": str(plan.folder / "tasks.db"), "CHAOS_HISTORY": str(plan.folder / "history")}
    if plan.hold is not None:
        environment["CHAOS_HOLD"] = str(plan.hold)
    return Server("chaos.apps.orders:app", folder=plan.folder, workers=plan.workers, environment=environment)


def _kill(server: Server, load: Load, random: Random) -> None:
    """Let the server live for a moment; then kill it, or one of its workers, and see that somebody serves again."""
    if random.random() < 0.1:
        time.sleep(random.uniform(0, LONGEST_START))
    else:
        load.wait_for_answers()
        time.sleep(random.uniform(0, LONGEST_LIFE))
    workers = server.workers()
    if workers and random.random() < 0.6:
        os.kill(random.choice(workers), signal.SIGKILL)  # uvicorn starts another one
    else:
        server.kill()
        server.start()


async def _all_finished(database: Path) -> None:
    async with SQLiteEngine(database) as engine, asyncio.timeout(TIMEOUT):
        while not all(state.finished for _, state in (await engine.stats()).counts):  # noqa: ASYNC110 (other processes do it)
            await asyncio.sleep(0.1)


async def _records(database: Path) -> list[Task]:
    async with SQLiteEngine(database) as engine:
        records = await engine.find(Query(limit=PAGE))
        while page := await engine.find(Query(limit=PAGE, before=records[-1].id)):
            records += page
    return records


def _call(record: Task) -> Position:
    arguments = json.loads(record.arguments)
    return arguments["order"], arguments["position"]


def _integrity(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        return "; ".join(line for [line] in connection.execute("PRAGMA integrity_check"))
