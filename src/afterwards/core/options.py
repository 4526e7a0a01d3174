"""Options of an installation, of a task function and of one call, and their validation."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum, auto
from functools import partial
from typing import Any, Literal, Protocol, Self, TypedDict, cast

from afterwards.core import keys
from afterwards.core.errors import InvalidOption, RefusedValue
from afterwards.core.keys import Key
from afterwards.core.limits import Limit, Rate
from afterwards.core.names import check_name
from afterwards.core.retry import Retry
from afterwards.core.schedule import Missed
from afterwards.core.spans import as_span
from afterwards.core.spelling import check_known
from afterwards.core.task import FailedTask
from afterwards.core.text import shown

MOST_PRIORITY = 100

NO_RETRY = Retry()

EARLIEST, LATEST = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)
"""Instants between these can be expressed in every time zone, even a minute later."""


class RunIn(StrEnum):
    """Where a ``def`` function runs."""

    THREAD = "thread"
    PROCESS = "process"

    @classmethod
    def of(cls, value: object) -> "RunIn":
        """Return the member for a text. Raises InvalidOption."""
        if not isinstance(value, str) or value not in tuple(cls):
            raise InvalidOption(f'run_in={value!r}: give "thread" or "process"')
        return cls(value)


class CallSettings(TypedDict, total=False):
    """Keywords of both ``f.options(...)`` and ``@task(...)``."""

    queue: str
    """The name of the task's queue: 1 to 100 letters, digits and ``_.:-``."""
    priority: int
    """-100 to 100; a higher priority runs first."""
    retries: int | Retry
    """The number of additional runs after failures. ``Retry(...)`` also sets the waits and the exceptions."""
    timeout: float | timedelta | None
    """Seconds that one attempt may take. A ``def`` function in a thread cannot be stopped: it times out on return."""
    retention: float | timedelta | None
    """Seconds that the record is kept after the task has finished."""
    expires: float | timedelta | None
    """Seconds after which no attempt starts. The task is then cancelled, and those after it in its chain."""
    unique: bool | str | Callable[..., str] | None
    """While a call with the same key waits or runs, adding another one returns the handle of the first. The key is True
    (all arguments), a template such as ``"{user_id}"``, or a function of the arguments. In ``f.options(...)`` a text is
    the key itself."""
    idempotency_key: str | Callable[..., str] | None
    """Until the record of a call is deleted, adding another call with the same key returns the handle of the first.
    ``await tasks.get(key=...)`` finds it. The key is a template or a function of the arguments. In ``f.options(...)`` a
    text is the key itself."""
    concurrency_key: str | Callable[..., str] | None
    """A key such as ``"{user_id}"``: ``max_concurrency`` and ``rate_limit`` apply to each key separately."""
    rerun_after_crash: bool
    """False: a task whose worker died or was stopped while it ran ends as failed, and does not run again."""
    delay: float | timedelta | None
    """Seconds to wait before the first attempt."""
    run_at: datetime | None
    """The earliest start of the first attempt, as an aware datetime, instead of ``delay``."""


class OneCallSettings(CallSettings, total=False):
    """Keywords of ``f.options(...)``."""

    after: "Stored | None"
    """The handle of a task that must succeed first. It may be of another request; the call leaves its own's order."""
    session: "DatabaseSession | None"
    """The SQLAlchemy ``Session`` or ``AsyncSession`` whose commit stores the task; None: without a session."""
    connection: "DatabaseConnection | None"
    """The psycopg ``Connection`` or ``AsyncConnection``, on the database of the tasks, in whose open transaction the
    task is stored; None: without a connection."""


class Stored(Protocol):
    """The part of a handle that options need."""

    id: str

    @property
    def stored(self) -> bool: ...


class DatabaseSession(Protocol):
    """The methods by which SQLAlchemy's sessions are recognised. A session is checked when it is given."""

    def commit(self) -> Any: ...
    def rollback(self) -> Any: ...
    def begin_nested(self) -> Any: ...


class DatabaseConnection(Protocol):
    """The methods by which psycopg's connections are recognised. A connection is checked when it is given."""

    def commit(self) -> Any: ...
    def rollback(self) -> Any: ...
    def transaction(self) -> Any: ...


class AsConfigured(Enum):
    """The type of the default that means: use the setting of the request's ``configure``."""

    AS_CONFIGURED = auto()


AS_CONFIGURED = AsConfigured.AS_CONFIGURED


class TaskSettings(CallSettings, total=False):
    """Keywords of ``@task(...)``."""

    name: str
    """The name under which tasks are stored. Default: the function's name. It must not change between deploys."""
    on_failure: Callable[[FailedTask], Any] | None
    """Called when a task has finally failed. If it is a task function, its call is stored with the failure."""
    max_concurrency: int | None
    """The most tasks of the function that run at once, in all processes together."""
    rate_limit: str | None
    """The most tasks of the function that start in any span, in all processes together: ``"10/m"``, ``"1/30s"``."""
    aliases: Sequence[str]
    """Former names of the function, oldest first. It runs tasks stored under them. Limits, uniqueness and the schedule
    survive the renaming."""
    run_in: RunIn | Literal["thread", "process"]
    """Where a ``def`` function runs: in a ``"thread"`` of the server (default) or in a ``"process"`` of its own. Use a
    process for work that holds the GIL, that may crash, or that must be stopped: it is killed at its timeout, or one
    second after a cancel.

    The process imports the function's module. It has its own globals, and no lifespan has run in it. ``Depends`` and
    ``UploadFile`` are refused. The process is reused for further tasks and ends after an idle minute. There are at most
    ``threads`` processes, in addition to the threads. Its standard output is the server's. The function may start
    programs, but no ``multiprocessing`` processes. It can enqueue only if its module makes the installation. Context
    variables of ``propagate`` and the trace do not reach it. Under the pytest plugin it runs in a thread, because
    tests share memory with the code under test."""
    cron: str
    """A cron expression that says when the function runs: minute, hour, day of month, month, day of week, as in
    Debian's cron. A sixth field in front means seconds. It needs ``afterwards[cron]``. The function is called without
    arguments."""
    tz: str
    """The IANA name of the time zone of ``cron``. Default: UTC. A fixed time that is skipped in spring fires right
    after the gap. One that occurs twice in autumn fires the first time."""
    every: float | timedelta
    """Seconds from one run to the next, at least 1, instead of ``cron``. Fires are multiples of the span since 1970
    (UTC), so that all processes agree."""
    missed: Missed | Literal["latest", "all", "skip"]
    """The missed fires that run later if no worker ran at their time: the ``"latest"`` (default), ``"all"``, or, with
    ``"skip"``, none that is older than a minute."""


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
        if isinstance(self.priority, bool) or not isinstance(self.priority, int) or abs(self.priority) > MOST_PRIORITY:
            raise InvalidOption(
                f"priority={shown(self.priority)}: give a whole number from -100 to 100; higher runs first"
            )
        if self.timeout is not None and not self.timeout:
            raise InvalidOption("timeout=0: give the seconds that an attempt may take, or None")
        if self.run_at is not None and not isinstance(self.run_at, datetime):
            raise InvalidOption(f"run_at={self.run_at!r}: give an aware datetime")
        if self.run_at is not None and self.run_at.utcoffset() is None:
            raise InvalidOption(f"run_at={self.run_at!r} has no time zone: give an aware datetime")
        if self.run_at is not None and not EARLIEST <= self.run_at <= LATEST:
            raise RefusedValue("run_at", f"={self.run_at!r} is too far away: give an instant of the years 2 to 9998")
        if self.run_at is not None and self.delay is not None:
            raise InvalidOption("delay and run_at are both given: give one of them")
        if self.delay is not None and self.expires is not None and self.expires <= self.delay:
            raise InvalidOption(f"expires={self.expires} ends before delay={self.delay} does: the task would never run")
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


def check_task_names(settings: Collection[str]) -> None:
    """Raise InvalidOption for names that ``@task(...)`` does not take."""
    for name in settings:
        if name in _OF_ONE_CALL and name not in _OF_TASKS:
            raise InvalidOption(f"{name} is for one call, as f.options({name}=...): it is no option of @task")
        check_known("@task", name, _OF_TASKS)


def check_call_names(settings: Collection[str]) -> None:
    """Raise InvalidOption for names that ``f.options(...)`` does not take."""
    for name in settings:
        if name in _OF_TASKS and name not in _OF_ONE_CALL:
            raise InvalidOption(f"{name} is for a function, as @task({name}=...): it cannot be set for one call")
        check_known("options", name, _OF_ONE_CALL)


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

    def __post_init__(self) -> None:
        if self.concurrency is not None:
            _check_count("concurrency", self.concurrency)
        for name in ("threads", "max_file_size"):
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
    return lease


def _check_most_queued(most: int | Mapping[str, int] | None) -> None:
    each = most if isinstance(most, Mapping) else {"default": most}
    for queue, count in each.items():
        check_name("queue", queue)
        if count is not None:
            _check_count("max_queued", count)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidOption(f"{name}={value!r}: give a whole number, at least 1")


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
_OF_TASKS = frozenset(TaskSettings.__annotations__)
_OF_ONE_CALL = frozenset(OneCallSettings.__annotations__)
_CHECKED: Mapping[str, Callable[[Any], Any]] = {
    "retries": _as_retry,
    **{name: partial(optional_span, name=name) for name in ("timeout", "retention", "delay", "expires")},
}
_KEYS = ("unique", "idempotency_key", "concurrency_key")
