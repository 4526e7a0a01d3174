"""FastAPI's BackgroundTasks, unchanged to use, that survive."""

from afterwards.app import Afterwards
from afterwards.core.errors import (
    AfterwardsError,
    Cancel,
    DuplicateName,
    EngineError,
    EngineUnavailable,
    InvalidDependency,
    InvalidOption,
    InvalidTaskFunction,
    NotFinished,
    NotInstalled,
    NotScheduled,
    NotStored,
    RetryAfter,
    Snooze,
    TaskFailed,
    TooLarge,
    UnknownTask,
    UnstorableArgument,
)
from afterwards.core.problems import Problem, ProblemKind
from afterwards.core.retry import Retry
from afterwards.core.routing import Unroutable
from afterwards.core.task import FailedTask, State, Task
from afterwards.functions import TaskFunction, task
from afterwards.handle import TaskHandle
from afterwards.injection import BackgroundTasks
from afterwards.schedules import ScheduleRecord

__all__ = [
    "Afterwards",
    "AfterwardsError",
    "BackgroundTasks",
    "Cancel",
    "DuplicateName",
    "EngineError",
    "EngineUnavailable",
    "FailedTask",
    "InvalidDependency",
    "InvalidOption",
    "InvalidTaskFunction",
    "NotFinished",
    "NotInstalled",
    "NotScheduled",
    "NotStored",
    "Problem",
    "ProblemKind",
    "Retry",
    "RetryAfter",
    "ScheduleRecord",
    "Snooze",
    "State",
    "Task",
    "TaskFailed",
    "TaskFunction",
    "TaskHandle",
    "TooLarge",
    "UnknownTask",
    "Unroutable",
    "UnstorableArgument",
    "task",
]
