"""A task function whose module has its process killed while it is imported, as when memory runs out."""

import os
import signal
from multiprocessing import parent_process
from pathlib import Path

from afterwards import task

KILLS = "KILLS_AT_IMPORT"
"""The variable that names a file with how many processes are still to be killed."""

if parent_process() is not None and KILLS in os.environ:
    file = Path(os.environ[KILLS])
    if left := int(file.read_text()):
        file.write_text(str(left - 1))
        os.kill(os.getpid(), signal.SIGKILL)


@task(run_in="process", rerun_after_crash=False)
def survive() -> str:
    return "alive"
