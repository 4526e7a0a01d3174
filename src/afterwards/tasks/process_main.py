"""Start of task processes: their main function, and a check against serving in them."""

import sys

from afterwards.execution.process_handle import NAME
from afterwards.execution.process_messages import Pipe
from afterwards.tasks.registry import registry


def main(connection: Pipe) -> None:
    """The main function of such a process."""
    from afterwards.execution.process_child import Child  # the server never needs it

    Child(connection, registry.get).serve()


def refuse_to_serve() -> None:
    """Raise RuntimeError in such a process, which has imported a program that serves as soon as it is imported."""
    started = sys.modules.get("multiprocessing.process")
    if started is not None and started.current_process().name.startswith(NAME):
        raise RuntimeError(
            'this process runs a @task(run_in="process") function and must not start a server: '
            'put the call that starts it, such as uvicorn.run(...), under `if __name__ == "__main__":`'
        )
