"""Before a deploy: can the new code run what is stored? The exit status is 1 when it cannot.

    python -m check quickstart:tasks

Run it with the new code, where the tasks are kept (`AFTERWARDS_URL`, or the folder of `afterwards.db`), while the old
code still works. It changes nothing, and shows no argument. In a deploy script, `set -e` stops there.
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
