"""A few kills and troubles, as a sample of what `make chaos` does hundreds of times."""

from dataclasses import replace
from pathlib import Path
from random import SystemRandom

import pytest

from chaos.celery_fleet import BROKERS
from chaos.run import Plan, run
from chaos.troubles import Troubles
from servers.fixtures import private_postgres
from servers.missing import missing
from servers.process import NotInstalled

pytestmark = [pytest.mark.afterwards(real=True), pytest.mark.timeout(300)]  # servers start slowly on a busy machine


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_lost_when_the_server_is_killed(workers: int, tmp_path: Path) -> None:
    keeps_its_promises(a_plan("sqlite", Troubles(kills=5), workers, tmp_path))


def test_nothing_is_lost_when_the_database_and_the_network_fail_too(tmp_path: Path) -> None:
    private_postgres().close()  # skips the test where there is none
    keeps_its_promises(a_plan("postgres", Troubles(kills=2, database=2, network=2), 2, tmp_path))


@pytest.mark.parametrize("fleet", ["celery+amqp", "celery+redis"])
def test_nothing_is_lost_when_a_celery_fleet_and_its_broker_are_killed(fleet: str, tmp_path: Path) -> None:
    try:
        BROKERS[fleet]().close()
    except NotInstalled as error:
        missing(str(error))
    plan = a_plan("sqlite", Troubles(kills=4, broker=2, messages=2), 2, tmp_path)
    keeps_its_promises(replace(plan, fleet=fleet, lease=3))


def a_plan(engine: str, troubles: Troubles, workers: int, folder: Path) -> Plan:
    seed = SystemRandom().randrange(10**6)  # new each time: pytest-randomly would always start at the same
    lease = None if engine == "sqlite" else 2
    return Plan(
        seed=seed, engine=engine, troubles=troubles, workers=workers, folder=folder, hold=1, lease=lease, timed=False
    )


def keeps_its_promises(plan: Plan) -> None:
    report = run(plan)
    print(report)
    assert not report.violations, f"{report}\n" + "\n".join(map(str, report.violations))
    assert report.acknowledged and (report.crashes or report.recoveries), f"nothing was at stake: {report}"
