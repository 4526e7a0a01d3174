"""Options of an installation, of a task function and of one call, and their validation."""

import json
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Self, cast

from afterwards.core import keys
from afterwards.core.errors import InvalidOption, RefusedValue
from afterwards.core.keys import Key
from afterwards.core.keywords import Stored
from afterwards.core.limits import Limit, Rate
from afterwards.core.names import check_name
from afterwards.core.retry import Retry
from afterwards.core.spans import as_span
from afterwards.core.spelling import check_known
from afterwards.core.text import shown

MOST_PRIORITY = 100

MOST_AT_ONCE = 100_000
"""Most tasks that one process may be told to run at once: room is made for each."""

LONGEST_LEASE = timedelta(hours=1)
"""The longest time without renewal for which a lease may hold.

Leases are renewed while a task runs, so a long task needs no long one. A worker that starts cannot know the others'
``lease``: it takes leases that end more than three hours after its own would for those of a clock that was ahead
(``lifecycle.put_right``). With this maximum, no lease of a clock that was right ends so late.
"""

NO_RETRY = Retry()

EARLIEST, LATEST = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)
"""Instants between these can be expressed in every time zone, even a minute later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """Validated options of a task function or of one call. Raises InvalidOption."""

    queue: str = "default"
    priority: int = 0
    retries: Retry = NO_RETRY
    timeout: timedelta | None = None
    retention: timedelta | None = None  # None: the installation's
    expires: timedelta | None = None
    unique: Key | None = None
    idempotency_key: Key | None = None
    concurrency_key: Key | None = None
    rerun_after_crash: bool = True
    after: Stored | None = None
    delay: timedelta | None = None
    run_at: datetime | None = None
    apart: bool = field(init=False, repr=False, compare=False)  # a call is not part of its request's chain
    keyed: bool = field(init=False, repr=False, compare=False)  # some key option is set

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "apart", any(one is not None for one in (self.delay, self.run_at, self.after)))
        object.__setattr__(self, "keyed", any(key is not None for _, key in self.key_makers()))

    def _check(self) -> None:
        check_name("queue", self.queue)
        _check_number("priority", self.priority, MOST_PRIORITY)
        if self.timeout is not None and not self.timeout:
            raise RefusedValue("timeout", "=0: give the seconds that an attempt may take, or None")
        if self.run_at is not None and not isinstance(self.run_at, datetime):
            raise InvalidOption(f"run_at={self.run_at!r}: give an aware datetime")
        if self.run_at is not None and self.run_at.utcoffset() is None:
            raise RefusedValue("run_at", f"={self.run_at!r} has no time zone: give an aware datetime")
        if self.run_at is not None and not EARLIEST <= self.run_at <= LATEST:
            raise RefusedValue("run_at", f"={self.run_at!r} is too far away: give an instant of the years 2 to 9998")
        if self.run_at is not None and self.delay is not None:
            raise InvalidOption("delay and run_at are both given: give one of them")
        if self.delay is not None and self.expires is not None and self.expires <= self.delay:
            problem = f"={self.expires} ends before delay={self.delay} does: the task would never run"
            raise RefusedValue("expires", problem)
        if not isinstance(self.rerun_after_crash, bool):
            raise InvalidOption(f"rerun_after_crash={self.rerun_after_crash!r}: give True or False")
        if self.after is not None and not (hasattr(self.after, "id") and hasattr(self.after, "stored")):
            raise InvalidOption(f"after={self.after!r}: give the handle of the task that must succeed first")

    def declared(self, settings: Mapping[str, Any]) -> Self:
        """Return a copy with the settings of ``@task(...)``. Raises InvalidOption."""
        return self.changed(_with_keys(settings, keys.declared))

    def changed(self, settings: Mapping[str, Any]) -> Self:
        """Return a copy with some options replaced. Raises InvalidOption."""
        for name in settings:
            check_known("options", name, _FIELDS)
        changed = {name: _CHECKED.get(name, _as_is)(value) for name, value in settings.items()}
        if changed.keys() & {"delay", "run_at"}:  # each replaces the other
            changed = {"delay": None, "run_at": None} | changed
        return replace(self, **changed)

    def called_with(self, settings: Mapping[str, Any]) -> Self:
        """Return a copy with the settings of one call. Raises InvalidOption."""
        retry = settings.get("retries")
        if isinstance(retry, Retry) and _exceptions(retry) not in (_exceptions(NO_RETRY), _exceptions(self.retries)):
            raise InvalidOption(
                "Retry(on=..., never=...) cannot be set for one call, because exceptions are not stored: "
                "set it in @task(...)"
            )
        return self.changed(_with_keys(settings, keys.given))

    def overrides(self, base: Self) -> str | None:
        """Return, as JSON, the options for a worker that differ from the function's; None if there are none."""
        changed: dict[str, Any] = {}
        if self.timeout != base.timeout:
            changed["timeout"] = self.timeout and self.timeout.total_seconds()
        if self.retries is not base.retries:
            changed["retries"] = _numbers(self.retries)
        return json.dumps(changed) if changed else None

    def overridden(self, overrides: str) -> Self:
        """Return the function's options with a stored call's overrides. ``on`` and ``never`` stay the function's."""
        changed = json.loads(overrides)
        if "retries" in changed:
            changed["retries"] = replace(self.retries, **changed["retries"])
        return self.changed(changed)

    def key_makers(self) -> list[tuple[str, Key | None]]:
        """Return each key option and its value."""
        return [(option, getattr(self, option)) for option in _KEYS]


def _check_number(option: str, number: object, most: int) -> None:
    problem = f"={shown(number)}: give a whole number from -{most} to {most}; higher runs first"
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidOption(f"{option}{problem}")
    if abs(number) > most:
        raise RefusedValue(option, problem)


def limit_of(max_concurrency: object, rate_limit: object) -> Limit | None:
    """Return the limit of a task function, None for unlimited. Raises InvalidOption."""
    if max_concurrency is None and rate_limit is None:
        return None
    if max_concurrency is not None:
        _check_count("max_concurrency", max_concurrency)
    rate = None if rate_limit is None else Rate.of(rate_limit)
    return Limit(max_concurrency=cast("int | None", max_concurrency), rate=rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Validated options of an installation. Raises InvalidOption."""

    concurrency: int | None = None  # durable tasks at once in this process (20); if given, also plain ones
    threads: int = 20  # `def` tasks at once in this process, apart from the endpoints' threads
    queues: frozenset[str] | None = None  # None: all
    worker: bool = True
    ordered: bool = True  # a request's durable tasks run one after the other
    grace: timedelta = timedelta(seconds=20)  # from the shutdown signal to the release of unfinished tasks
    lease: timedelta = timedelta(seconds=30)  # without renewal for this long, another worker may reclaim the task
    retention: timedelta = timedelta(days=7)
    max_queued: int | Mapping[str, int] | None = None  # tasks that may wait in a queue; a number applies to each queue
    propagate: tuple[ContextVar[Any], ...] = ()  # context variables whose values attempts get from the caller
    max_file_size: int = 32 * 1024 * 1024  # bytes of one uploaded file among a task's arguments
    max_streams: int = 100  # clients that may follow tasks by server-sent events in this process

    def __post_init__(self) -> None:
        if self.concurrency is not None:
            _check_count("concurrency", self.concurrency, MOST_AT_ONCE)
        _check_count("threads", self.threads, MOST_AT_ONCE)
        for name in ("max_file_size", "max_streams"):
            _check_count(name, getattr(self, name))
        _check_most_queued(self.max_queued)
        for variable in self.propagate:
            if not isinstance(variable, ContextVar):
                raise InvalidOption(f"propagate={variable!r}: give context variables (contextvars.ContextVar)")
        for name in ("worker", "ordered"):
            if not isinstance(value := getattr(self, name), bool):
                raise InvalidOption(f"{name}={value!r}: give True or False")
        if self.queues is not None and not self.queues:
            raise InvalidOption("queues is empty, so no task would ever run: name queues, or leave it out for all")
        lease_of(self.lease)
        for queue in self.queues or ():
            check_name("queue", queue)

    @property
    def slots(self) -> int:
        return self.concurrency or 20

    def most_queued(self, queue: str) -> int | None:
        """Return how many tasks may wait in a queue, None for any number."""
        return self.max_queued.get(queue) if isinstance(self.max_queued, Mapping) else self.max_queued


def lease_of(value: float | timedelta) -> timedelta:
    """Return the time after which a lease without a heartbeat ends. Raises InvalidOption."""
    lease = as_span(value, "lease")
    if lease < timedelta(seconds=0.3):
        raise InvalidOption(f"lease={value!r}: three heartbeats must fit into it; 0.3 seconds at least")
    if lease > LONGEST_LEASE:
        raise InvalidOption(
            f"lease={value!r}: an hour at most; it is renewed while a task runs, so a long task needs no long lease"
        )
    return lease


def _check_most_queued(most: int | Mapping[str, int] | None) -> None:
    each = most if isinstance(most, Mapping) else {"default": most}
    for queue, count in each.items():
        check_name("queue", queue)
        if count is not None:
            _check_count("max_queued", count)


def _check_count(name: str, value: object, most: int = sys.maxsize) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidOption(f"{name}={shown(value)}: give a whole number, at least 1")
    if value > most:
        raise InvalidOption(f"{name}={shown(value)}: give a whole number from 1 to {most:,}")


def optional_span(value: float | timedelta | None, name: str) -> timedelta | None:
    return None if value is None else as_span(value, name)


def _with_keys(settings: Mapping[str, Any], key: Callable[[str, object], Key | None]) -> Mapping[str, Any]:
    return {**settings, **{name: key(name, settings[name]) for name in _KEYS if name in settings}}


def _as_retry(value: int | Retry) -> Retry:
    return value if isinstance(value, Retry) else Retry(value)


def _as_is(value: Any) -> Any:
    return value


def _exceptions(retry: Retry) -> tuple[object, object]:
    return retry.on, retry.never


def _numbers(retry: Retry) -> dict[str, Any]:
    return {name: value for name, value in asdict(retry).items() if name not in ("on", "never")}


_FIELDS = frozenset(one.name for one in fields(TaskOptions) if one.init)
_CHECKED: Mapping[str, Callable[[Any], Any]] = {
    "retries": _as_retry,
    **{name: partial(optional_span, name=name) for name in ("timeout", "retention", "delay", "expires")},
}
_KEYS = ("unique", "idempotency_key", "concurrency_key")
