"""Check whether a function can run in a separate process."""

from afterwards.core.errors import InvalidTaskFunction
from afterwards.core.keywords import RunIn
from afterwards.execution.function import Runnable


def check_isolated(function: Runnable) -> None:
    """Raise InvalidTaskFunction for a ``run_in="process"`` function that no other process could call."""
    if function.run_in is RunIn.PROCESS and (problem := _problem(function)):
        raise InvalidTaskFunction(f'@task(run_in="process") on {function.function.__qualname__}: {problem}')


def _problem(function: Runnable) -> str | None:
    if function.is_async:
        return (
            "an `async def` runs on the application's event loop and shares its open connections: "
            "write a `def`, which may call asyncio.run()"
        )
    if "<locals>" in function.function.__qualname__:
        return "its process finds it by importing its module: define it at module level, outside other functions"
    if function.plan.parameters:
        names = ", ".join(name for name, _ in function.plan.parameters)
        return (
            f"Depends would fill {names} with objects of the application's process: "
            "make what it needs inside the function"
        )
    if function.codec.files:
        names = ", ".join(sorted(function.codec.files))
        return f"an uploaded file ({names}) is open in the application's process: save the file, and pass its path"
    return None
