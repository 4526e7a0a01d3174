"""The difference between two answers, in words."""

from dataclasses import fields

from afterwards.core.task import Task


def difference(yours: object, memory: object) -> str:
    """Return how an answer differs from that of the engine in memory, a line for each field."""
    match yours, memory:
        case Task(), Task() if yours.id == memory.id:
            pairs = ((one.name, getattr(yours, one.name), getattr(memory, one.name)) for one in fields(Task))
            return "\n".join(
                f"task {yours.id}: {name} is {mine!r}, in memory {theirs!r}"
                for name, mine, theirs in pairs
                if mine != theirs
            )
        case list(), list() if len(yours) == len(memory):
            pairs_of_items = zip(yours, memory, strict=True)
            return "\n".join(difference(mine, theirs) for mine, theirs in pairs_of_items if mine != theirs)
        case _:
            return f"your engine answers {_briefly(yours)}, the one in memory {_briefly(memory)}"


def _briefly(answer: object) -> str:
    match answer:
        case Task():
            return f"task {answer.id} ({answer.state})"
        case list():
            return f"[{', '.join(map(_briefly, answer))}]"
        case _:
            return repr(answer)
