"""The task functions of this process, by the names under which their tasks are stored."""

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from afterwards.core.errors import DuplicateName, UnknownFunction
from afterwards.core.limits import Limit
from afterwards.core.process_state import ProcessState
from afterwards.tasks.function import TaskFunction


class Registry(ProcessState):
    """The task functions of this process, by name. Rows name functions, and only registered ones are run."""

    def __init__(self) -> None:
        self._functions: dict[str, TaskFunction[Any, Any, Any]] = {}  # also by earlier names
        self.names: frozenset[str] = frozenset()  # a new object when functions are added, as is `limits`
        self.limits: dict[str, Limit] = {}
        self.claimed_ahead: frozenset[str] = frozenset()  # functions whose tasks may be leased before a slot is free

    def add(self, function: TaskFunction[Any, Any, Any]) -> None:
        """Add a function; its place may be added again (reload, ``__main__`` and its module). Raises DuplicateName."""
        names = (function.name, *function.aliases)
        for name in names:
            known = self._functions.get(name)
            if known is not None and known.place != function.place:
                raise DuplicateName(
                    f"two task functions are named {name!r}: {_shown(known)} and {_shown(function)}. "
                    'Give one of them another name: @task(name="...")'
                )
        self._functions |= dict.fromkeys(names, function)
        self.names = frozenset(self._functions)
        self.limits = {
            name: replace(known.limit, counts_as=known.identity)
            for name, known in self._functions.items()
            if known.limit
        }
        # A leased task counts for its limit. A task that a crash ends for good must not be leased earlier than needed.
        self.claimed_ahead = frozenset(
            name for name, known in self._functions.items() if not known.limit and known.settings.rerun_after_crash
        )

    def get(self, name: str) -> TaskFunction[Any, Any, Any]:
        try:
            return self._functions[name]
        except KeyError:
            raise UnknownFunction(name) from None

    def __iter__(self) -> Iterator[TaskFunction[Any, Any, Any]]:
        return iter([function for name, function in self._functions.items() if name == function.name])


def _shown(function: TaskFunction[Any, Any, Any]) -> str:
    file, qualname = function.place
    return f"{qualname} ({file}, line {inspect.unwrap(function.function).__code__.co_firstlineno})"


registry = Registry()
