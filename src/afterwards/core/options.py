"""What can be set: for an installation, for a task function, for one call."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, Self, TypedDict

from afterwards.core.errors import InvalidOption, as_span
from afterwards.core.retry import Retry
from afterwards.core.schedule import Missed
from afterwards.core.task import FailedTask

NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
"""What a task name, a queue and a key look like."""

MOST_PRIORITY = 100

NO_RETRY = Retry()


class CallSettings(TypedDict, total=False):
    """What ``f.options(...)`` takes."""

    queue: str
    """Which line the task stands in; letters, digits and ``_.:-``, at most 100."""
    priority: int
    """-100 to 100; higher runs first."""
    retries: int | Retry
    """How many additional runs after a failure; ``Retry(...)`` also says which exceptions and how soon."""
    timeout: float | timedelta | None
    """Seconds that one attempt may take. A ``def`` function cannot be stopped: it is judged when it returns."""
    retention: float | timedelta | None
    """Seconds that the record stays after the task finished."""
    delay: float | timedelta | None
    """Seconds to wait before the first attempt."""
    run_at: datetime | None
    """The instant of the first attempt, as an aware datetime; instead of ``delay``."""


class TaskSettings(CallSettings, total=False):
    """What ``@task(...)`` takes."""

    name: str
    """The name under which tasks are stored; default: the function's. It must stay the same from deploy to deploy."""
    on_failure: Callable[[FailedTask], Any] | None
    """Told when a task has failed for good. A task function is stored together with the failure."""
    cron: str
    """Run it by itself where this expression matches: minute, hour, day of month, month, day of week, as in Debian's
    cron; a sixth field in front means seconds. Needs ``afterwards[cron]``. The function is called without arguments."""
    tz: str
    """The IANA name of the time zone whose clock ``cron`` reads; default: UTC. A fixed time that the clock skips in
    spring comes right after the gap, one that it shows twice in autumn fires the first time."""
    every: float | timedelta
    """Instead of ``cron``: seconds from one run to the next, at least 1. Counted from 1970 (UTC), so that all processes
    agree."""
    missed: Missed | Literal["latest", "all", "skip"]
    """Which fires are made up for that came while no worker ran: the ``"latest"`` (default), ``"all"``, or, with
    ``"skip"``, none that is older than a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """The options of a task function, or of one call of it; checked."""

    queue: str = "default"
    priority: int = 0
    retries: Retry = NO_RETRY
    timeout: timedelta | None = None
    retention: timedelta | None = None  # None: as the installation says
    delay: timedelta | None = None
    run_at: datetime | None = None

    def __post_init__(self) -> None:
        check_name("queue", self.queue)
        if isinstance(self.priority, bool) or not isinstance(self.priority, int) or abs(self.priority) > MOST_PRIORITY:
            raise InvalidOption(f"priority={self.priority!r}: give a whole number from -100 to 100; higher runs first")
        if self.timeout is not None and not self.timeout:
            raise InvalidOption("timeout=0: give the seconds that an attempt may take, or None")
        if self.run_at is not None and not isinstance(self.run_at, datetime):
            raise InvalidOption(f"run_at={self.run_at!r}: give an aware datetime")
        if self.run_at is not None and self.run_at.tzinfo is None:
            raise InvalidOption(f"run_at={self.run_at!r} has no time zone: give an aware datetime")
        if self.run_at is not None and self.delay is not None:
            raise InvalidOption("delay and run_at are both given: give one of them")

    def changed(self, settings: Mapping[str, Any]) -> Self:
        """These options with some of them set anew, from what a user wrote."""
        unknown = settings.keys() - _FIELDS
        if unknown:
            raise InvalidOption(f"{', '.join(sorted(unknown))}: no such option; there are {', '.join(sorted(_FIELDS))}")
        changed = {name: _CHECKED.get(name, _as_is)(value) for name, value in settings.items()}
        if changed.keys() & {"delay", "run_at"}:  # the one that is given replaces the other
            changed = {"delay": None, "run_at": None} | changed
        return replace(self, **changed)

    def called_with(self, settings: Mapping[str, Any]) -> Self:
        """These options as one call sets them anew."""
        retry = settings.get("retries")
        if isinstance(retry, Retry) and _exceptions(retry) not in (_exceptions(NO_RETRY), _exceptions(self.retries)):
            raise InvalidOption(
                "Retry(on=..., never=...) cannot be set for one call, for exceptions are not stored: "
                "say it where the function is decorated"
            )
        return self.changed(settings)

    def overrides(self, base: Self) -> str | None:
        """What the worker must know of this call because the function's own options say otherwise; JSON."""
        changed: dict[str, Any] = {}
        if self.timeout != base.timeout:
            changed["timeout"] = self.timeout and self.timeout.total_seconds()
        if self.retries is not base.retries:
            changed["retries"] = _numbers(self.retries)
        return json.dumps(changed) if changed else None

    def overridden(self, overrides: str) -> Self:
        """The function's options with what a call stored; ``on`` and ``never`` stay the function's."""
        changed = json.loads(overrides)
        if "retries" in changed:
            changed["retries"] = replace(self.retries, **changed["retries"])
        return self.changed(changed)

    @property
    def delayed(self) -> bool:
        return self.delay is not None or self.run_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of an installation."""

    concurrency: int | None = None  # durable tasks at once in this process (20); when given, plain ones at once too
    threads: int = 20  # `def` tasks at once in this process, apart from the endpoints' threads
    queues: frozenset[str] | None = None  # None: all
    worker: bool = True
    ordered: bool = True  # a request's durable tasks run one after the other
    grace: timedelta = timedelta(seconds=20)  # from the signal to the release of what still runs
    lease: timedelta = timedelta(seconds=30)  # unrenewed for so long, a task is another worker's
    retention: timedelta = timedelta(days=7)

    def __post_init__(self) -> None:
        for name in ("concurrency", "threads"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidOption(f"{name}={value!r}: give a whole number, at least 1")
        for name in ("worker", "ordered"):
            if not isinstance(value := getattr(self, name), bool):
                raise InvalidOption(f"{name}={value!r}: give True or False")
        if self.queues is not None and not self.queues:
            raise InvalidOption("queues is empty, so no task would ever run: name some, or leave it out for all")
        if self.lease < timedelta(seconds=0.3):
            raise InvalidOption(f"lease={self.lease}: three heartbeats must fit into it; 0.3 seconds at least")
        for queue in self.queues or ():
            check_name("queue", queue)

    @property
    def slots(self) -> int:
        return self.concurrency or 20


def check_name(kind: str, name: str) -> str:
    """The name, if it is one."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidOption(f"{kind} {name!r}: use 1 to 100 of the characters A-Z a-z 0-9 _ . : -")
    return name


def optional_span(value: float | timedelta | None, name: str) -> timedelta | None:
    return None if value is None else as_span(value, name)


def _as_retry(value: int | Retry) -> Retry:
    return value if isinstance(value, Retry) else Retry(value)


def _as_is(value: Any) -> Any:
    return value


def _exceptions(retry: Retry) -> tuple[object, object]:
    return retry.on, retry.never


def _numbers(retry: Retry) -> dict[str, Any]:
    return {name: value for name, value in asdict(retry).items() if name not in ("on", "never")}


_FIELDS = frozenset(field.name for field in fields(TaskOptions))
_CHECKED: Mapping[str, Callable[[Any], Any]] = {
    "retries": _as_retry,
    **{name: partial(optional_span, name=name) for name in ("timeout", "retention", "delay")},
}
