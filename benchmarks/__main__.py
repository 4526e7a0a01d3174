"""Run all benchmarks, or those named as arguments, and print a table of each."""

import sys
from collections.abc import Callable, Mapping

from benchmarks import celeries, chains, claim, drain, enqueue, latency, postgres, requests, size
from benchmarks.machine import described
from benchmarks.measure import Figure
from benchmarks.table import written

SUBJECTS: Mapping[str, Callable[[], list[Figure]]] = {
    "enqueue": enqueue.figures,
    "drain": drain.figures,
    "latency": latency.figures,
    "claim": claim.figures,
    "chains": chains.figures,
    "requests": requests.figures,
    "size": size.figures,
    "postgres": postgres.figures,
    "celery": celeries.figures,
}


def main(names: list[str]) -> int:
    """Run benchmarks. Returns the exit status, 2 for an unknown name. A missed aim is only printed: machines differ."""
    unknown = set(names) - SUBJECTS.keys()
    if unknown:
        print(f"no such subject: {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}", file=sys.stderr)
        return 2
    print(described())
    for name in names or SUBJECTS:
        print(f"\n{name}\n{written(SUBJECTS[name]())}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
