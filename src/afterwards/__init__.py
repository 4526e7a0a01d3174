"""FastAPI's BackgroundTasks, unchanged to use, that survive."""

from afterwards.app import Afterwards
from afterwards.core.errors import (
    AfterwardsError,
    Cancel,
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
    RetryAfter,
    Snooze,
    TaskFailed,
    TooLarge,
    UnknownTask,
    UnstorableArgument,
)
from afterwards.core.injected import injected
from afterwards.core.problems import Problem, ProblemKind
from afterwards.core.progress import Progress
from afterwards.core.retry import Retry
from afterwards.core.routing import Unroutable
from afterwards.core.task import FailedTask, State, Task
from afterwards.declaring import task
from afterwards.flow import chain
from afterwards.functions import Call, TaskFunction
from afterwards.handle import TaskHandle
from afterwards.injection import BackgroundTasks
from afterwards.progress import ProgressBar, progress
from afterwards.schedules import ScheduleRecord
from afterwards.worker.context import TaskContext

__all__ = [
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
    "Snooze",
    "State",
    "Task",
    "TaskContext",
    "TaskFailed",
    "TaskFunction",
    "TaskHandle",
    "TooLarge",
    "UnknownTask",
    "Unroutable",
    "UnstorableArgument",
    "chain",
    "injected",
    "progress",
    "task",
]
