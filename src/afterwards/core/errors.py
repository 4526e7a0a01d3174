"""The errors of this package, under one root."""


class AfterwardsError(Exception):
    """The root of all errors of this package."""


class InvalidOption(AfterwardsError, ValueError):
    """An option has a value that it cannot have."""


class UnknownOption(InvalidOption, TypeError):
    """A keyword that the call does not take."""


class RefusedValue(InvalidOption):
    """A value that a client may have sent cannot be stored. ``Afterwards`` answers it with 422."""

    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(f"{parameter}{problem}")
        self.parameter = parameter


class InvalidKey(AfterwardsError, ValueError):
    """The key of a call cannot be made of its arguments."""

    def __init__(self, task: str, option: str, problem: str) -> None:
        super().__init__(f'task "{task}", {option}: the key {problem}')
        self.task = task
        self.option = option


class InvalidTaskFunction(AfterwardsError, TypeError):
    """What was decorated cannot be called again by another process."""


class WrappedTaskFunction(AfterwardsError, TypeError):
    """A decorator is around a task function: adding it would run the task function without storing it."""

    def __init__(self, task: str, problem: str) -> None:
        super().__init__(f'task "{task}": {problem}')
        self.task = task


class NotAFunction(AfterwardsError, TypeError):
    """Something else was added where a function was to be, as what its call returned."""


class DuplicateName(AfterwardsError, ValueError):
    """Two places claim the same task name."""


class UnknownFunction(AfterwardsError, LookupError):
    """No task function of this process has the name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f'no task function is named "{name}" here: import the module that defines it, '
            "or give its old name to the function that took its place"
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
    """No task has the id: it was never stored, or it was pruned."""

    def __init__(self, id: str, what: str = "id") -> None:
        super().__init__(f"no task has the {what} {id}: it was never stored here, or its retention is over")
        self.id = id


class UnusableAnnotation(InvalidTaskFunction):
    """A parameter's annotation is no type that can be written as JSON and read back."""

    def __init__(self, task: str, parameter: str, reason: str) -> None:
        super().__init__(f'task "{task}", parameter "{parameter}": {reason}')
        self.task = task
        self.parameter = parameter


class UnstorableArgument(AfterwardsError, TypeError):
    """An argument would not come back from JSON as it is."""

    def __init__(self, task: str, parameter: str, reason: str) -> None:
        super().__init__(f'task "{task}", parameter "{parameter}": {reason}')
        self.task = task
        self.parameter = parameter


class RefusedArgument(UnstorableArgument):
    """An argument that a client may have sent holds text that is no Unicode. ``Afterwards`` answers it with 422."""


class UnstorableContext(AfterwardsError, TypeError):
    """A context variable of ``Afterwards(propagate=...)`` holds what JSON does not give back."""

    def __init__(self, variable: str, found: str) -> None:
        super().__init__(
            f'context variable "{variable}" holds a value of type {found}, which cannot be stored with a task: '
            "keep text, numbers, lists or dictionaries in it, or leave it out of `propagate`"
        )
        self.variable = variable


class UnstorableResult(AfterwardsError, TypeError):
    """What a task function returned would not come back from JSON as it is."""

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(f'task "{task}", result: {reason}')
        self.task = task


class TooLarge(AfterwardsError, ValueError):
    """Arguments or a result are longer, as JSON text, than what is stored. Both sizes are bytes."""

    _unit = "bytes as JSON"
    _remedy = "keep the data elsewhere, and pass its path or id"

    def __init__(self, task: str, what: str, size: int, limit: int) -> None:
        super().__init__(f'task "{task}", {what}: {size:,} {self._unit}, the limit is {limit:,}: {self._remedy}')
        self.task = task
        self.size = size
        self.limit = limit


class FileTooLarge(TooLarge):
    """An uploaded file is larger than what is stored."""

    _unit = "bytes"
    _remedy = "raise it with Afterwards(app, max_file_size=...), or keep the file elsewhere and pass its path or id"


class FileMissing(AfterwardsError, LookupError):
    """The content of an uploaded file is not in the store, although its task is."""

    def __init__(self, task: str, filename: str | None, id: str) -> None:
        super().__init__(
            f'task "{task}": the content of the uploaded file {filename!r} ({id}) is not in the store: '
            "it was deleted there by hand, or lost with a part of the store"
        )
        self.task = task
        self.id = id


class Unreadable(AfterwardsError, ValueError):
    """Stored text does not fit the task function as it is now: its signature or a type has changed since."""

    def __init__(self, task: str, what: str, reason: str) -> None:
        super().__init__(f'task "{task}", {what}: what is stored does not fit the signature any more: {reason}')
        self.task = task


class InvalidDependency(AfterwardsError, TypeError):
    """A task function, or something that it depends on, is declared in a way that no worker can resolve."""

    def __init__(self, chain: str, problem: str) -> None:
        super().__init__(f"{chain} {problem}")
        self.chain = chain


class NeedsHttp(InvalidDependency):
    """Only an HTTP request could fill the parameter, and a task runs without one."""

    def __init__(self, chain: str, problem: str, fix: str) -> None:
        super().__init__(chain, f"{problem}, and a task runs without an HTTP request: {fix}")


class UnresolvedAnnotation(InvalidDependency, NameError):
    """The annotation of a parameter cannot be evaluated, so nobody knows what fills it."""

    def __init__(self, chain: str, annotation: object, reason: str) -> None:
        super().__init__(
            chain,
            f"has the annotation {annotation!r}, which cannot be evaluated ({reason}): "
            "its names must exist in the function's module at run time, not only under TYPE_CHECKING",
        )
        self.annotation = annotation


class NotInjected(AfterwardsError, TypeError):
    """A parameter that a dependency fills has no value: its function did not run as a task."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}. Only a @task function that runs as a task is given its dependencies: "
            "in a direct call, pass the value yourself"
        )


class NoHttpRequest(AfterwardsError, RuntimeError):
    """A dependency of a task read something that belongs to an HTTP request."""

    def __init__(self, chain: str, attribute: str) -> None:
        super().__init__(
            f"{chain} read {attribute}, and a task runs without an HTTP request. Of `Request`, .app and .state work "
            "here: read anything else in the endpoint, and pass it to the task as an argument"
        )
        self.chain = chain
        self.attribute = attribute


class SwallowedException(AfterwardsError, RuntimeError):
    """A dependency caught what the task raised, and did not raise it again: the task has failed all the same."""

    def __init__(self, chain: str, error: BaseException) -> None:
        super().__init__(
            f"{chain} caught {type(error).__name__}({error}) at its `yield` and did not raise it again: "
            "end that `except` with `raise`"
        )
        self.chain = chain
        self.error = error


class NotInstalled(AfterwardsError, RuntimeError):
    """A task function was added where no ``Afterwards(app)`` can store it."""


class AlreadyStarted(AfterwardsError, RuntimeError):
    """An application can be installed into only until it starts."""


class AlreadyInstalled(AfterwardsError, RuntimeError):
    """An application keeps its tasks in one place."""


WAITS_FOR_THE_HANDLER = (
    " yet: tasks are stored when the handler returns. To ask earlier, store them now: await background_tasks.flush()"
)
"""Why a task is not stored, as other reasons are: how the sentence goes on."""


class NotStored(AfterwardsError, RuntimeError):
    """A handle was asked about a task that is still in the request's buffer."""

    def __init__(self, id: str, reason: str = WAITS_FOR_THE_HANDLER) -> None:
        super().__init__(f"task {id} is not stored{reason}")
        self.id = id


class NotAsyncio(AfterwardsError, RuntimeError):
    """Another event loop than asyncio's runs, as Trio's."""

    def __init__(self) -> None:
        super().__init__(
            "Afterwards needs asyncio, and Trio or another event loop runs here: serve the application with asyncio "
            "(`hypercorn --worker-class asyncio`, or uvicorn; in tests, anyio's asyncio backend)"
        )


class QueueFull(AfterwardsError):
    """So many tasks wait in a queue that it takes no more; nothing was stored. ``Afterwards`` answers it with 429."""

    def __init__(self, queue: str, limit: int) -> None:
        super().__init__(f'queue "{queue}" is full: {limit:,} tasks wait in it, as many as max_queued allows')
        self.queue = queue
        self.limit = limit


class TaskFailed(AfterwardsError):
    """The task whose result was asked for ended without one."""


class NotFinished(AfterwardsError, TimeoutError):
    """The task had not finished when the time to wait for its result was over."""


class NativeBackgroundTasks(AfterwardsError, RuntimeError):
    """A task function ran through FastAPI's or Starlette's own background task, which does not store it."""


class ProcessDied(AfterwardsError, RuntimeError):
    """The process of a ``run_in="process"`` function ended before the function did, or could not be started."""


class EngineError(AfterwardsError):
    """The engine refused or could not do what was asked."""


class EngineUnavailable(EngineError):
    """The engine cannot be reached now; the same call may succeed later. Whether it took effect is unknown."""


class WorkerUnfit(EngineError):
    """The worker of this process cannot go on, so a request's tasks would not run here; nothing was stored."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the worker of this process cannot go on: {reason}; the log says why")
        self.reason = reason


class UnsupportedEngine(EngineError, ValueError):
    """The URL names an engine that this installation does not have."""


class UnsafeFileSystem(EngineError):
    """The SQLite file lies where its locks do not hold."""
