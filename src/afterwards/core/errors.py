"""The exceptions of this package, with one base class."""


class AfterwardsError(Exception):
    """Base class of all errors of this package."""


class InvalidOption(AfterwardsError, ValueError):
    """An option has an invalid value."""


class UnknownOption(InvalidOption, TypeError):
    """A keyword argument is not an option of the call."""


class RefusedValue(InvalidOption):
    """A value that a client may have sent cannot be stored. In a request it is answered with 422."""

    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(f"{parameter}{problem}")
        self.parameter = parameter


class InvalidKey(AfterwardsError, ValueError):
    """No key can be made from a call's arguments."""

    def __init__(self, task: str, option: str, problem: str) -> None:
        super().__init__(f'task "{task}", {option}: the key {problem}')
        self.task = task
        self.option = option
        self.problem = problem


class RefusedKey(InvalidKey):
    """A client may have sent the argument that gives an empty key, or none. In a request it is answered with 422."""

    def __init__(self, task: str, option: str, problem: str) -> None:
        super().__init__(task, option, problem)
        self.parameter = option


class InvalidTaskFunction(AfterwardsError, TypeError):
    """The decorated object cannot be called by another process."""


class WrappedTaskFunction(AfterwardsError, TypeError):
    """A decorator wraps a task function: adding the wrapper would run the function without storing a task."""

    def __init__(self, task: str, problem: str) -> None:
        super().__init__(f'task "{task}": {problem}')
        self.task = task


class NotAFunction(AfterwardsError, TypeError):
    """Something was added that is no function to run later, such as the result of calling one, or ``chain``."""


class DuplicateName(AfterwardsError, ValueError):
    """Two functions have the same task name."""


class UnknownFunction(AfterwardsError, LookupError):
    """No task function in this process has the name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f'no task function is named "{name}" here: import the module that defines it, '
            "or list the name in the aliases of the function that replaced it"
        )
        self.name = name


class NotScheduled(AfterwardsError, LookupError):
    """The task function has no schedule."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f'task function "{name}" has no schedule: give it one with @task(cron="0 3 * * *") or @task(every=60), '
            f"or run it once with `await {name}.enqueue(...)`"
        )
        self.name = name


class UnknownTask(AfterwardsError, LookupError):
    """No task has the id or key: it was never stored, or its record was pruned."""

    def __init__(self, id: str, what: str = "id") -> None:
        super().__init__(f"no task has the {what} {id}: it was never stored here, or its retention is over")
        self.id = id


class WrongState(AfterwardsError, RuntimeError):
    """The state of the task does not allow what was asked for. In a request it is answered with 409."""

    def __init__(self, id: str, state: str, problem: str) -> None:
        super().__init__(f"task {id} is {state}: {problem}")
        self.id = id
        self.state = state


class UnusableAnnotation(InvalidTaskFunction):
    """The type of a parameter cannot be written as JSON and read back."""

    def __init__(self, task: str, parameter: str, reason: str) -> None:
        super().__init__(f'task "{task}", parameter "{parameter}": {reason}')
        self.task = task
        self.parameter = parameter


class UnstorableArgument(AfterwardsError, TypeError):
    """An argument would change in a round trip through JSON."""

    def __init__(self, task: str, parameter: str, reason: str) -> None:
        super().__init__(f'task "{task}", parameter "{parameter}": {reason}')
        self.task = task
        self.parameter = parameter


class RefusedArgument(UnstorableArgument):
    """An argument that a client may have sent holds what JSON cannot, or breaks a rule. A request gets 422."""


class UnstorableContext(AfterwardsError, TypeError):
    """A context variable of ``Afterwards(propagate=...)`` holds a value that is not plain JSON."""

    def __init__(self, variable: str, found: str) -> None:
        super().__init__(
            f'context variable "{variable}" holds a value of type {found}, which cannot be stored with a task: '
            "keep text, numbers, lists or dictionaries in it, or leave it out of `propagate`"
        )
        self.variable = variable


class RefusedContext(UnstorableContext):
    """A context variable holds a value that a client may have sent. In a request it is answered with 422."""

    def __init__(self, variable: str, found: str) -> None:
        super().__init__(variable, found)
        self.parameter = variable


class UnstorableResult(AfterwardsError, TypeError):
    """The result of a task function would change in a round trip through JSON."""

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(f'task "{task}", result: {reason}')
        self.task = task


class TooLarge(AfterwardsError, ValueError):
    """Arguments or a result exceed the size limit. ``size`` and ``limit`` are bytes of JSON text."""

    _unit = "bytes as JSON"
    _remedy = "keep the data elsewhere, and pass its path or id"

    def __init__(self, task: str, what: str, size: int, limit: int) -> None:
        super().__init__(f'task "{task}", {what}: {size:,} {self._unit}, the limit is {limit:,}: {self._remedy}')
        self.task = task
        self.size = size
        self.limit = limit


class FileTooLarge(TooLarge):
    """An uploaded file exceeds ``max_file_size``. ``size`` and ``limit`` are bytes."""

    _unit = "bytes"
    _remedy = "raise it with Afterwards(app, max_file_size=...), or keep the file elsewhere and pass its path or id"


class FileMissing(AfterwardsError, LookupError):
    """A task is stored, and the content of its uploaded file is missing."""

    def __init__(self, task: str, filename: str | None, id: str) -> None:
        super().__init__(
            f'task "{task}": the content of the uploaded file {filename!r} ({id}) is not in the store: '
            "it was deleted there by hand, or lost with a part of the store"
        )
        self.task = task
        self.id = id


class Unreadable(AfterwardsError, ValueError):
    """Stored arguments or a result do not fit the task function, whose signature or types have changed."""

    def __init__(self, task: str, what: str, reason: str) -> None:
        super().__init__(f'task "{task}", {what}: the stored value no longer fits the signature: {reason}')
        self.task = task


class InvalidDependency(AfterwardsError, TypeError):
    """A task function or one of its dependencies has a declaration that no worker can resolve."""

    def __init__(self, chain: str, problem: str) -> None:
        super().__init__(f"{chain} {problem}")
        self.chain = chain


class NeedsHttp(InvalidDependency):
    """Only an HTTP request could fill a parameter, and tasks run without one."""

    def __init__(self, chain: str, problem: str, fix: str) -> None:
        super().__init__(chain, f"{problem}, and a task runs without an HTTP request: {fix}")


class UnresolvedAnnotation(InvalidDependency, NameError):
    """The annotation of a parameter cannot be evaluated, so it is unknown what fills it."""

    def __init__(self, chain: str, annotation: object, reason: str) -> None:
        super().__init__(
            chain,
            f"has the annotation {annotation!r}, which cannot be evaluated ({reason}): "
            "its names must exist in the function's module at run time, not only under TYPE_CHECKING",
        )
        self.annotation = annotation


class NotInjected(AfterwardsError, TypeError):
    """A parameter has no value because its dependency was not resolved: the function did not run as a task."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}. Dependencies are resolved only when a @task function runs as a task: "
            "in a direct call, pass the value yourself"
        )


class NoHttpRequest(AfterwardsError, RuntimeError):
    """A dependency of a task read an attribute that only an HTTP request has."""

    def __init__(self, chain: str, attribute: str) -> None:
        super().__init__(
            f"{chain} read {attribute}, and a task runs without an HTTP request. Of `Request`, .app and .state work "
            "here: read anything else in the endpoint, and pass it to the task as an argument"
        )
        self.chain = chain
        self.attribute = attribute


class SwallowedException(AfterwardsError, RuntimeError):
    """A dependency caught the task's exception and did not raise it again. The task has failed nevertheless."""

    def __init__(self, chain: str, error: BaseException) -> None:
        super().__init__(
            f"{chain} caught {type(error).__name__}({error}) at its `yield` and did not raise it again: "
            "end that `except` with `raise`"
        )
        self.chain = chain
        self.error = error


class NotInstalled(AfterwardsError, RuntimeError):
    """A task was added, and no ``Afterwards(app)`` is installed that could store it."""


class AlreadyStarted(AfterwardsError, RuntimeError):
    """The application has already started: ``Afterwards`` must be installed before."""


class AlreadyInstalled(AfterwardsError, RuntimeError):
    """The application already has an installation."""


WAITS_FOR_THE_HANDLER = (
    " yet: tasks are stored when the handler returns. To ask earlier, store them now: await background_tasks.flush()"
)
"""The default end of NotStored's message."""


class NotStored(AfterwardsError, RuntimeError):
    """A handle was used before its task was stored."""

    def __init__(self, id: str, reason: str = WAITS_FOR_THE_HANDLER) -> None:
        super().__init__(f"task {id} is not stored{reason}")
        self.id = id


class NotAsyncio(AfterwardsError, RuntimeError):
    """The running event loop is not asyncio's, but Trio's, for example."""

    def __init__(self) -> None:
        super().__init__(
            "Afterwards needs asyncio, and Trio or another event loop runs here: serve the application with asyncio "
            "(`hypercorn --worker-class asyncio`, or uvicorn; in tests, anyio's asyncio backend)"
        )


class QueueFull(AfterwardsError):
    """A queue has reached ``max_queued``; nothing was stored. In a request it is answered with 429."""

    def __init__(self, queue: str, limit: int) -> None:
        super().__init__(f'queue "{queue}" is full: {limit:,} tasks wait in it, as many as max_queued allows')
        self.queue = queue
        self.limit = limit


class TaskFailed(AfterwardsError):
    """The task has failed or was cancelled, so it has no result."""


class NotFinished(AfterwardsError, TimeoutError):
    """The task did not finish within the timeout of ``result()``."""


class WaitsForItself(NotFinished):
    """A task waited for its own result, or for that of a task that waits for it. Neither could ever end."""

    def __init__(self, waiting: str, awaited: str) -> None:
        super().__init__(
            f"{waiting} would wait for ever for the result of {awaited}, which waits for it, directly or through "
            "others: let one of them end first, and start what comes next with options(after=...)"
        )


class NativeBackgroundTasks(AfterwardsError, RuntimeError):
    """A task function was run by FastAPI's or Starlette's own background task, which does not store it."""


class ProcessDied(AfterwardsError, RuntimeError):
    """The process of a ``run_in="process"`` function ended before the function did, or could not be started."""


class EngineError(AfterwardsError):
    """An engine refused an operation or could not perform it."""


class EngineUnavailable(EngineError):
    """The engine is unavailable. It is unknown whether the operation took effect; a retry may succeed."""


class BrokerUnavailable(AfterwardsError, ConnectionError):
    """Celery's broker did not accept the call of a Celery task. In a request it is answered with 503.

    It is unknown whether a broker that did not answer in time has accepted the call.
    """

    def __init__(self, task: str, broker: str, reason: str) -> None:
        super().__init__(
            f'Celery task "{task}" was not sent: the broker {broker} did not accept it ({reason}). Send it again when '
            "the broker answers"
        )
        self.task = task
        self.broker = broker  # without its password
        self.reason = reason


class NoResultBackend(AfterwardsError, RuntimeError):
    """A Celery task keeps neither state nor result, so its handle cannot be asked for them."""

    def __init__(self, task: str, problem: str) -> None:
        super().__init__(f'Celery task "{task}" {problem}')
        self.task = task


class WorkerUnfit(EngineError):
    """The worker of this process has failed, so a request's tasks were not stored. In a request: 503."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the worker of this process cannot continue: {reason}; the log says why")
        self.reason = reason


class UnsupportedEngine(EngineError, ValueError):
    """The URL is invalid, or no engine is installed for it."""


class UnsafeFileSystem(EngineError):
    """The SQLite file is on a file system whose locks are not reliable."""
