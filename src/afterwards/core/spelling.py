"""Reject unknown keyword arguments, and suggest the option that was probably meant."""

from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any, Final

from afterwards.core.errors import UnknownOption


def check_known(where: str, name: str, known: Collection[str]) -> None:
    """Raise UnknownOption for an unknown name. Its message suggests the option that was probably meant."""
    if name in known:
        return
    meant = [*(one for one in _ELSEWHERE.get(name, ()) if one in known), *get_close_matches(name, known, n=1)]
    hint = f"did you mean {meant[0]}? " if meant else ""
    raise UnknownOption(
        f"{where}({name}=...): there is no such option; {hint}The options are {', '.join(sorted(known))}"
    )


def check_names(called: Callable[..., Any], given: Collection[str]) -> None:
    """Raise UnknownOption for a keyword that a function or class does not accept."""
    if not given:  # the usual case
        return
    parameters = signature(called).parameters.values()
    known = [one.name for one in parameters if one.kind in _NAMED and one.name != "self"]
    for name in given:
        check_known(called.__name__, name, known)


_NAMED: Final = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_TIMES: Final = ("retries", "times")
_ELSEWHERE: Final[Mapping[str, Sequence[str]]] = {  # names in other libraries, or in another place of ours
    "max_retries": _TIMES,
    "retry": _TIMES,
    "retries": _TIMES,
    "attempts": _TIMES,
    "max_attempts": _TIMES,
    "max_retry": _TIMES,
    "tries": _TIMES,
    "max_tries": _TIMES,
    "max": ("max_wait",),
    "max_delay": ("max_wait",),
    "task": ("name",),
    "function": ("name",),
    "status": ("state",),
    "countdown": ("delay", "wait"),
    "delay": ("wait",),
    "backoff": ("factor",),
    "exceptions": ("on",),
    "eta": ("run_at",),
    "time_limit": ("timeout",),
    "ttl": ("expires", "retention"),
    "schedule": ("cron",),
    "interval": ("every",),
    "timezone": ("tz",),
    "rate": ("rate_limit",),
    "limit": ("max_concurrency",),
    "workers": ("concurrency",),
    "max_workers": ("concurrency",),
    "database": ("url",),
    "db": ("url",),
    "dsn": ("url",),
    "path": ("url",),
    "store": ("url",),
    "broker": ("url",),
    "key": ("idempotency_key",),
}
