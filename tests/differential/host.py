"""A process that runs situations: `python -m differential.host [modules to import first]`, an order in each line.

Each run is a child of its own, forked when everything is imported: nothing of one run is left to the next, and the
server has the main thread, as in production. pytest is not here, so that no plugin of ours helps either.
"""

import gc
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from differential.catalogue import SITUATIONS
from differential.kit import Variant
from differential.run import Run

LIFETIME = 50  # seconds; a run that hangs ends itself, also when nobody is left to end it


def main() -> None:
    """Run what the orders say, each beside the others, until there are none."""
    _warm_up(sys.argv[1:])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits here: an order is done when its pipe is closed
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        done = os.open(order["done"], os.O_WRONLY)
        if os.fork() == 0:
            _run_and_leave(order)
        os.close(done)


def _warm_up(modules: Sequence[str]) -> None:
    """Do once what each child would do again: imports, the first-time work of the libraries, old garbage."""
    with TemporaryDirectory() as folder:
        Run(SITUATIONS["in_an_async_handler"], Variant.STOCK, Path(folder)).observe(0)
    for module in modules:
        importlib.import_module(module)
    gc.freeze()


def _run_and_leave(order: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.alarm(LIFETIME)
    folder = Path(order["folder"])
    try:
        observed = Run(SITUATIONS[order["situation"]], Variant(order["variant"]), folder).observe(order["events"])
    except BaseException:  # whatever it was, pytest shall show it: this process has no other way to tell
        observed = {"failed": traceback.format_exc()}
    (folder / "observed.json").write_text(json.dumps(observed))
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
