"""A worker made by hand: it takes one task, and for each line that it reads it reports that as progress.

`python -m chaos.apps.beating tasks.db` answers with the leases that are still its own, as JSON.
"""

import asyncio
import json
import sys
from datetime import timedelta

from afterwards.core.progress import Progress
from afterwards.engine import Claim, Heartbeat
from afterwards.engines.sqlite import SQLiteEngine

LEASE = timedelta(seconds=0.5)


async def main() -> None:
    async with SQLiteEngine(sys.argv[1]) as engine:
        [task] = await engine.claim(Claim(worker="beating", limit=1, lease=LEASE, names=frozenset({"anything"})))
        _answer([task.id])
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            held = await engine.heartbeat(
                [Heartbeat(task.lease, progress=Progress(done=1, description=line))], lease=LEASE
            )
            _answer([one.lease.task_id for one in held])


def _answer(ids: list[str]) -> None:
    print(json.dumps(ids), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
