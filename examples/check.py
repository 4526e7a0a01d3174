"""Check before a deploy that the new code can run the stored tasks. The exit status is 1 if it cannot.

    python -m check quickstart:tasks

Run it with the new code while the old code still runs, with the same store (`AFTERWARDS_URL`, or in the folder of
`afterwards.db`). It changes nothing, and shows no argument. In a deploy script, `set -e` stops if it fails.
"""

import asyncio
import importlib
import sys

from afterwards import Afterwards


async def main(target: str) -> int:
    module, _, name = target.partition(":")
    tasks: Afterwards = getattr(importlib.import_module(module), name)  # imports the task functions, too
    problems = await tasks.check()
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
