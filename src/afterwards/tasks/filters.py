"""The keywords that say which tasks somebody means."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, TypeVar

from afterwards.client.steering import MOST_LISTED, Filter
from afterwards.core.errors import InvalidOption, RefusedValue, UnknownOption
from afterwards.core.names import check_name
from afterwards.core.spans import as_span
from afterwards.core.spelling import check_known
from afterwards.core.task import State
from afterwards.core.text import shown
from afterwards.tasks.function import TaskFunction

T = TypeVar("T")

AnyState = State | Literal["waiting", "scheduled", "queued", "running", "succeeded", "failed", "cancelled"]
AnyName = TaskFunction[Any, Any, Any] | str


class Which(TypedDict, total=False):
    """Which tasks are meant: those for which everything holds that is given."""

    state: AnyState | Collection[AnyState]
    """A state, or several."""
    name: AnyName | Collection[AnyName]
    """A task function or the name of one, or several. A function stands for its aliases, too."""
    queue: str | Collection[str]
    """A queue, or several."""
    text: str
    """A text in the id, the name, the request, the arguments, or the failures' messages. Case does not matter in ASCII.
    Arguments and failures of a task with secrets are not searched."""
    since: datetime | timedelta
    """An aware datetime, or a span until now: finished then or later; if not finished, added then or later."""


class WhichOrAll(Which, total=False):
    """Which tasks are to be changed."""

    all: bool
    """True: all tasks to which it can be done. Only without another keyword."""


def filter_of(method: str, which: Mapping[str, Any], now: datetime) -> Filter:
    """Return the filter for keywords of ``Which``; None means the same as no keyword.

    Raises InvalidOption, and RefusedValue for a value that a client may have sent.
    """
    for name in which:
        check_known(method, name, _LISTED)
    given = {name: value for name, value in which.items() if value is not None}
    text = given.get("text")
    if not isinstance(text, str | None):
        raise InvalidOption(f"{method}(text={shown(text)}): give text")
    return Filter(
        states=_several(given.get("state"), _state),
        names=_names(given.get("name")),
        queues=_several(given.get("queue"), lambda queue: check_name("queue", queue)),
        text=text or None,
        since=_since(method, given["since"], now) if "since" in given else None,
    )


def filter_to_change(method: str, which: Mapping[str, Any], now: datetime) -> Filter:
    """Return the filter for keywords of ``WhichOrAll``. Raises InvalidOption if they say nothing, or both."""
    for name in which:
        check_known(method, name, _CHANGED)
    wanted = filter_of(method, {name: value for name, value in which.items() if name != "all"}, now)
    everything = which.get("all", False)
    if not isinstance(everything, bool):
        raise InvalidOption(f"{method}(all={shown(everything)}): give True, or say which tasks")
    if everything and wanted != Filter():
        raise InvalidOption(f"{method}(all=True, ...) says which tasks as well: leave one of them out")
    if not everything and wanted == Filter():
        raise InvalidOption(
            f"{method}() says of no task that it is meant: give {', '.join(_LISTED)}, or all=True for all tasks"
        )
    return wanted


def check_unnamed(method: str, given: Sequence[object]) -> None:
    """Raise UnknownOption for arguments without a keyword: nothing says whether they are names, queues or ids."""
    if not given:
        return
    first = given[0]
    if isinstance(first, TaskFunction):
        hint = f"write {method}(name={first.name})"
    else:
        hint = f"give {', '.join(one + '=' for one in _LISTED)} before it; of one task: await tasks.get(id)"
    raise UnknownOption(f"{method}({shown(first)}): found an argument without a keyword: {hint}")


def checked_limit(method: str, limit: int) -> int:
    """Return the size of a page. Raises InvalidOption, and for a number RefusedValue."""
    problem = f"={shown(limit)}: give 1 to {MOST_LISTED:,}, and continue with before="
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise InvalidOption(f"{method}(limit{problem})")
    if not 1 <= limit <= MOST_LISTED:
        raise RefusedValue("limit", problem)
    return limit


def _several(given: Any, read: Callable[[Any], T]) -> frozenset[T] | None:
    if given is None:
        return None
    if isinstance(given, str) or not isinstance(given, Collection):
        return frozenset({read(given)})
    return frozenset(map(read, given))


def _names(given: Any) -> frozenset[str] | None:
    several = _several(given, _names_of)
    return None if several is None else frozenset().union(*several)


def _names_of(name: Any) -> frozenset[str]:
    if isinstance(name, TaskFunction):
        return frozenset({name.name, *name.aliases})
    if not isinstance(name, str):
        raise InvalidOption(f"name={shown(name)}: give a task function that @task made, or its name")
    return frozenset({check_name("name", name)})


def _state(state: Any) -> State:
    try:
        return State(state)
    except ValueError:
        problem = f"={shown(state)}: give one of {', '.join(State)}, or several"
        raise RefusedValue("state", problem) if isinstance(state, str) else InvalidOption(f"state{problem}") from None


def _since(method: str, since: Any, now: datetime) -> datetime:
    match since:
        case timedelta():
            return now - as_span(since, "since")
        case datetime() if since.tzinfo is not None:
            return since
        case datetime():
            raise RefusedValue("since", f"={shown(since)} has no time zone: give an aware datetime")
    raise InvalidOption(f"{method}(since={shown(since)}): give an aware datetime, or a timedelta until now")


_LISTED = tuple(Which.__annotations__)
_CHANGED = tuple(WhichOrAll.__annotations__)
