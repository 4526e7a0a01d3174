"""FastAPI's BackgroundTasks, with tasks that survive a crash: the public names."""

from afterwards.app import Afterwards
from afterwards.client.handle import TaskHandle
from afterwards.core.control import Cancel, RetryAfter, Snooze
from afterwards.core.errors import (
    AfterwardsError,
    DuplicateName,
    EngineError,
    EngineUnavailable,
    InvalidDependency,
    InvalidKey,
    InvalidOption,
    InvalidTaskFunction,
    NotFinished,
    NotInjected,
    NotInstalled,
    NotScheduled,
    NotStored,
    ProcessDied,
    QueueFull,
    TaskFailed,
    TooLarge,
    UnknownTask,
    UnstorableArgument,
    WrongState,
)
from afterwards.core.injected import injected
from afterwards.core.problems import Problem, ProblemKind
from afterwards.core.progress import Progress
from afterwards.core.record import TaskRecord
from afterwards.core.retry import Retry
from afterwards.core.routing import Unroutable
from afterwards.core.secret import Secret
from afterwards.core.task import FailedTask, State
from afterwards.dashboard.access import Access
from afterwards.execution.context import TaskContext
from afterwards.tasks.chain import chain
from afterwards.tasks.decorator import task
from afterwards.tasks.desk import TaskPage, TaskStats
from afterwards.tasks.function import Call, TaskFunction
from afterwards.tasks.progress import ProgressBar, progress
from afterwards.tasks.schedules import ScheduleRecord
from afterwards.web.background_tasks import BackgroundTasks

__all__ = [
    "Access",
    "Afterwards",
    "AfterwardsError",
    "BackgroundTasks",
    "Call",
    "Cancel",
    "DuplicateName",
    "EngineError",
    "EngineUnavailable",
    "FailedTask",
    "InvalidDependency",
    "InvalidKey",
    "InvalidOption",
    "InvalidTaskFunction",
    "NotFinished",
    "NotInjected",
    "NotInstalled",
    "NotScheduled",
    "NotStored",
    "Problem",
    "ProblemKind",
    "ProcessDied",
    "Progress",
    "ProgressBar",
    "QueueFull",
    "Retry",
    "RetryAfter",
    "ScheduleRecord",
    "Secret",
    "Snooze",
    "State",
    "TaskContext",
    "TaskFailed",
    "TaskFunction",
    "TaskHandle",
    "TaskPage",
    "TaskRecord",
    "TaskStats",
    "TooLarge",
    "UnknownTask",
    "Unroutable",
    "UnstorableArgument",
    "WrongState",
    "chain",
    "injected",
    "progress",
    "task",
]
