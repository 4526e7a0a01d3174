"""`python -m tests.chaos`: 200 kills of a server with one worker process, 200 of one with two, and a verdict."""

import argparse
import sys
from pathlib import Path
from random import SystemRandom
from shutil import rmtree
from tempfile import mkdtemp

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds the package, too

from chaos.run import Plan, Report, run


def main() -> int:
    """0 when every promise was kept."""
    options = _options()
    print(f"seed {options.seed}: repeat with `python -m tests.chaos --seed {options.seed}`", flush=True)
    return int(any([_run(options, workers).violations for workers in options.workers]))


def _run(options: argparse.Namespace, workers: int) -> Report:
    folder = Path(mkdtemp(prefix="afterwards-chaos-"))
    report = run(Plan(seed=options.seed, kills=options.kills, workers=workers, folder=folder), say=_say)
    print(report)
    if report.violations:
        print(*report.violations, f"the evidence is in {folder}", sep="\n", flush=True)
    else:
        rmtree(folder)
    return report


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="for each number of workers (200)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="as in `uvicorn --workers` (1 2)")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
