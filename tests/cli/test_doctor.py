"""``afterwards doctor``: what it finds, and how serious that is."""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from afterwards.cli.findings import Finding, Level, Read, of_database, of_file, of_store
from afterwards.cli.output import counted
from afterwards.core.routing import LiveWorker, Unroutable
from afterwards.core.task import State
from afterwards.engine import Paused, Stats
from afterwards.engines.sqlite.diagnosis import Diagnosis
from cli.commands import afterwards, answered
from servers.postgres import PASSWORD, PostgresServer

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
WORKER = LiveWorker(id="w", host="one", pid="7", started_at=NOW, names=frozenset({"send"}), slots=20, version="1.0")
QUEUED = {("default", State.QUEUED): 3}
WELL = Read(
    stats=Stats(counts=QUEUED, oldest=timedelta(seconds=3)),
    paused=Paused(),
    workers=[WORKER],
    unroutable=[],
    set_aside=0,
    failed_lately=0,
    newest=NOW,
)
FILE = Diagnosis(
    version="3.51.3",
    has_wal_reset_bug=False,
    takes_turns=True,
    file_system="ext4",
    size=1000,
    free=10**11,
    read_by_others=False,
)
LOST = Unroutable(name="sent", queue="mail", count=4, since=NOW, reason="no live worker knows it")


def serious(findings: Sequence[Finding]) -> list[tuple[str, Level]]:
    return [(one.about, one.level) for one in findings if one.level is not Level.OK]


def test_a_store_that_is_well_has_no_warning() -> None:
    findings = [*of_store(WELL, NOW, in_a_file=True), *of_file(FILE)]
    findings += of_database(160003, pooled=True, pending=0, now=NOW, here=NOW)
    assert serious(findings) == []
    assert {one.about for one in findings} >= {"workers", "names", "paused", "waiting", "postgresql", "clock"}


@pytest.mark.parametrize(
    ("changed", "about", "level", "said"),
    [
        ({"workers": []}, "workers", Level.PROBLEM, "none is alive, and 3 tasks cannot run"),
        ({"workers": [replace(WORKER, has_left=True)]}, "workers", Level.PROBLEM, "none is alive"),
        ({"workers": [replace(WORKER, slots=0)]}, "workers", Level.PROBLEM, "cannot run: start those of the fleet"),
        ({"workers": [], "stats": Stats(counts={}, oldest=None)}, "workers", Level.WARNING, "none is alive: start"),
        ({"workers": [WORKER, replace(WORKER, host="two")]}, "workers", Level.PROBLEM, "workers on 2 hosts (one, two)"),
        ({"workers": [WORKER, replace(WORKER, version="2.0")]}, "versions", Level.WARNING, "1.0 (1), 2.0 (1)"),
        ({"workers": [replace(WORKER, lag=timedelta(seconds=2))]}, "event loop", Level.WARNING, "was 2 s late"),
        ({"unroutable": [LOST]}, "names", Level.PROBLEM, "4 tasks of sent in queue mail would be taken by no worker"),
        ({"paused": Paused(queues=frozenset({"mail"}))}, "paused", Level.WARNING, "queues mail"),
        ({"paused": Paused(schedules=frozenset({"tidy"}))}, "paused", Level.WARNING, "schedules tidy"),
        ({"stats": Stats(counts=QUEUED, oldest=timedelta(hours=2))}, "waiting", Level.WARNING, "the first for 2 h"),
        ({"set_aside": 2}, "set aside", Level.WARNING, "2 tasks cannot be read"),
        ({"failed_lately": 1}, "failures", Level.WARNING, "1 task failed in the last day"),
        ({"newest": NOW + timedelta(hours=1)}, "clock", Level.WARNING, "1 h in the future"),
    ],
)
def test_each_trouble_of_a_store_is_found(changed: dict[str, Any], about: str, level: Level, said: str) -> None:
    found = [one for one in of_store(replace(WELL, **changed), NOW, in_a_file=True) if one.level is not Level.OK]
    assert [(one.about, one.level) for one in found] == [(about, level)]
    assert said in found[0].text


def test_workers_on_several_hosts_may_share_a_server() -> None:
    shared = replace(WELL, workers=[WORKER, replace(WORKER, host="two")])
    assert serious(list(of_store(shared, NOW, in_a_file=False))) == []


@pytest.mark.parametrize(
    ("changed", "about"),
    [
        ({"has_wal_reset_bug": True, "takes_turns": False}, "sqlite"),
        ({"read_by_others": True}, "permissions"),
        ({"free": 1000}, "space"),
    ],
)
def test_each_trouble_of_a_file_is_found(changed: dict[str, Any], about: str) -> None:
    assert serious(list(of_file(replace(FILE, **changed)))) == [(about, Level.WARNING)]


def test_each_trouble_of_a_database_is_found() -> None:
    found = list(of_database(160003, pooled=False, pending=4, now=NOW, here=NOW - timedelta(minutes=3)))
    assert serious(found) == [("migrations", Level.PROBLEM), ("clock", Level.WARNING)]
    assert "differs from the server's by 3 min" in found[-1].text


@pytest.mark.afterwards(real=True)
def test_a_real_file_is_examined(shop: Path) -> None:
    os.chmod(shop / "afterwards.db", 0o644)
    levels = {one["about"]: one["level"] for one in answered(shop, "doctor", code=1)}
    assert levels["workers"] == "problem"  # tasks wait, and nobody works
    assert levels["permissions"] == "warning"
    assert levels["file system"] == "ok"
    done = afterwards(shop, "doctor")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    problems = [line.split()[1] for line in lines if line.startswith("problem ")]
    assert problems in (["workers"], ["workers", "names"])  # the second once a task has waited for ten minutes
    assert f"{counted(len(problems), 'problem')} found" in done.stderr


@pytest.mark.afterwards(real=True)
@pytest.mark.xdist_group("postgres_sessions")
def test_a_real_database_is_examined(postgres: PostgresServer, postgres_url: str, tmp_path: Path) -> None:
    url = f"{postgres_url}?schema=jobs"
    before = {one["about"]: one for one in answered(tmp_path, "doctor", "--url", url, code=1)}
    assert before["migrations"]["level"] == "problem"
    assert "afterwards migrate" in before["migrations"]["text"]
    assert "workers" not in before  # nothing was made by looking
    assert afterwards(tmp_path, "migrate", "--url", url).returncode == 0
    after = {one["about"]: one for one in answered(tmp_path, "doctor", "--url", url)}
    assert after["migrations"]["level"] == after["clock"]["level"] == "ok"
    assert PASSWORD not in str(after)
