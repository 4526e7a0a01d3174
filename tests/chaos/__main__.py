"""`python -m tests.chaos`: an application under load is killed 200 times, its database and network fail, and a verdict.

SQLite: once with one server process, once with two. PostgreSQL: two server processes and a worker on another host, 50
kills of the database server, and 50 troubles of the network. With `--fleet celery+amqp` or `celery+redis`: 140 kills,
most of them of Celery's workers and the processes of their pools, 20 of the broker, and 20 times its messages are
purged or doubled.
"""

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from shutil import rmtree
from tempfile import mkdtemp

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds the package, too

from chaos.run import Plan, Report, run
from chaos.troubles import Troubles


@dataclass(frozen=True)
class Default:
    troubles: Troubles
    workers: Sequence[int]
    lease: float | None = None


DEFAULTS: Mapping[str, Default] = {
    "sqlite": Default(Troubles(kills=200), workers=(1, 2)),
    # Nobody sees that a process on another host is dead: its leases run out, which shall happen many times in a run.
    "postgres": Default(Troubles(kills=200, database=50, network=50), workers=(2,), lease=5),
}


FLEETS = Default(Troubles(kills=140, broker=20, messages=20), workers=(2,), lease=5)  # over 100 kills are of the fleet


def main() -> int:
    """0 when every promise was kept."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so end what was started
    fleet = f" --fleet {options.fleet}" if options.fleet else ""
    again = f"python -m tests.chaos --engine {options.engine}{fleet} --seed {options.seed}"
    print(f"seed {options.seed}: repeat with `{again}`", flush=True)
    return int(any([_run(options, workers).violations for workers in options.workers or _default(options).workers]))


def _run(options: argparse.Namespace, workers: int) -> Report:
    folder = Path(mkdtemp(prefix="afterwards-chaos-"))
    default = _default(options).troubles
    troubles = Troubles(
        kills=default.kills if options.kills is None else options.kills,
        database=default.database if options.database is None else options.database,
        network=default.network if options.network is None else options.network,
        broker=default.broker if options.broker is None else options.broker,
        messages=default.messages if options.messages is None else options.messages,
    )
    plan = Plan(
        seed=options.seed,
        engine=options.engine,
        troubles=troubles,
        workers=workers,
        folder=folder,
        lease=_default(options).lease,
        fleet=options.fleet,
    )
    report = run(plan, say=_say)
    print(report)
    if report.violations:
        print(*report.violations, f"the evidence is in {folder}", sep="\n", flush=True)
    else:
        rmtree(folder)
    return report


def _default(options: argparse.Namespace) -> Default:
    return FLEETS if options.fleet else DEFAULTS[options.engine]


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--engine", choices=sorted(DEFAULTS), default="sqlite")
    parser.add_argument("--fleet", choices=["celery+amqp", "celery+redis"], help="run the tasks on Celery workers")
    parser.add_argument("--broker", type=int, help="restarts and kills of the fleet's broker")
    parser.add_argument("--messages", type=int, help="times that its messages are purged or doubled")
    parser.add_argument("--kills", type=int, help="of processes, for each number of workers")
    parser.add_argument("--database", type=int, help="kills of the database server")
    parser.add_argument("--network", type=int, help="troubles of the network")
    parser.add_argument("--workers", type=int, nargs="+", help="runs with so many, as in `uvicorn --workers`")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
