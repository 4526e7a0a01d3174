"""Ten kills, as a sample of what `make chaos` does two hundred times and more."""

from pathlib import Path
from random import SystemRandom

import pytest

from chaos.run import Plan, run
from chaos.troubles import Troubles


@pytest.mark.afterwards(real=True)
@pytest.mark.timeout(180)  # a server starts in a second, but not on a machine that is busy with all other tests
@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_lost_when_the_server_is_killed(workers: int, tmp_path: Path) -> None:
    seed = SystemRandom().randrange(10**6)  # new each time: pytest-randomly would always start at the same
    report = run(
        Plan(
            seed=seed,
            engine="sqlite",
            troubles=Troubles(kills=5),
            workers=workers,
            folder=tmp_path,
            hold=1,
            timed=False,
        )
    )
    print(report)
    assert not report.violations, f"{report}\n" + "\n".join(map(str, report.violations))
    assert report.acknowledged and report.crashes, f"nothing was at stake: {report}"
