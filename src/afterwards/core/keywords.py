"""The keywords of ``@task(...)`` and ``f.options(...)``, with their documentation."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from typing import Any, Literal, Protocol, TypedDict

from afterwards.core.errors import InvalidOption
from afterwards.core.retry import Retry
from afterwards.core.schedule import Missed
from afterwards.core.spelling import check_known
from afterwards.core.task import FailedTask


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
    """Seconds that one attempt may take, with its dependencies. A ``def`` function in a thread cannot be stopped: it
    times out on return, and its dependencies and a coroutine that it returns have as many seconds for themselves."""
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


_OF_TASKS = frozenset(TaskSettings.__annotations__)
_OF_ONE_CALL = frozenset(OneCallSettings.__annotations__)
