"""Log lines about requests and their tasks."""

import logging
from collections.abc import Collection, Iterable
from functools import partial

from afterwards.core.text import text_of
from afterwards.telemetry import writing
from afterwards.telemetry.writing import REQUESTS, unless_away

once = partial(writing.once, logger=REQUESTS)
write = partial(writing.write, logger=REQUESTS)


def no_worker(engine: str, *, in_a_file: bool) -> None:
    """Log that a script stores tasks in a file or database where no worker has ever run."""
    place, example = ("file", "sqlite:////folder/afterwards.db") if in_a_file else ("database", "postgresql://...")
    once(
        f"no worker {engine}",
        logging.WARNING,
        f"afterwards: a task was stored in {engine}, where no worker has ever run, so it may never run. If the "
        f"server uses another {place}, give both the same URL: AFTERWARDS_URL={example} in the environment, or the URL "
        "in Afterwards(app, ...)",
    )


def without_lifespan(engine: str) -> None:
    once(
        f"without lifespan {engine}",
        logging.INFO,
        "afterwards: the application runs without its lifespan (it is mounted in another application, or its "
        "server does not support lifespans): the worker started with the first request",
    )


def injected_with_yield(version: str, stack: str) -> None:
    once(
        "injected with yield",
        logging.WARNING,
        f"afterwards: FastAPI {version} keeps no exit stack {stack!r} in a request's scope, so tasks are stored by a "
        "dependency with yield, which is slower. The first request's tasks are stored when its response starts, unless "
        "the response is an error",
    )


def injected_everywhere(version: str) -> None:
    once(
        "injected everywhere",
        logging.WARNING,
        f"afterwards: FastAPI {version} does not show which routes use BackgroundTasks, so every route added after "
        "Afterwards(app) gets one more dependency; routes added before, and mounted applications, do not store tasks",
    )


def boundary_restored(*, refused: str) -> None:
    write(
        logging.ERROR,
        f"afterwards: other code has replaced the application's middleware_stack while it served (OpenTelemetry's "
        f"uninstrument_app does), so that {refused} could not store tasks and is answered with 503. Afterwards has put "
        "itself back: the next requests are stored again",
    )


def committed_late(origin: str | None, names: Collection[str]) -> None:
    for name in dict.fromkeys(names):
        once(
            f"committed late {name}",
            logging.WARNING,
            f"the response of {origin or 'a request'} is sent before task {name!r} is stored, because its "
            "session commits later. If the process dies in between, rows and task are lost after a 2xx. Commit in the "
            'endpoint, or end the dependency that commits before the response: Depends(get_db, scope="function")',
        )


def committed_by_another(names: Collection[str]) -> None:
    for name in dict.fromkeys(names):
        once(
            f"committed by another {name}",
            logging.WARNING,
            f"the session of task {name!r} has committed, but is bound to a connection whose own transaction goes on: "
            "that one decides whether the rows are stored. It may end after the response, or be rolled back although "
            "the task runs. Bind the session to the engine, so that its commit is the commit",
        )


def not_stored(error: BaseException, names: Iterable[str], *, answered: bool) -> None:
    """Log that a request's tasks could not be stored. ``answered``: its response had already started."""
    how = "after the response had started: they are lost" if answered else "so the request is answered with 503"
    write(
        logging.ERROR,
        f"tasks could not be stored ({', '.join(names)}), {how}: {text_of(error)}",
        exc_info=unless_away(error),
    )


def not_taken_back(ids: Iterable[str], error: BaseException) -> None:
    """Log that a refused request's tasks could not be cancelled: they run within a minute."""
    write(
        logging.ERROR,
        f"a request was refused because a Celery task could not be sent, and its stored tasks ({', '.join(ids)}) could "
        f"not be cancelled: they will run: {text_of(error)}",
        exc_info=unless_away(error),
    )


def stored_after_response(origin: str | None, names: Iterable[str], *, development: bool) -> None:
    """Log tasks that were added to an object which its request did not know."""
    for name in dict.fromkeys(names):
        once(
            f"stored after response {name}",
            logging.ERROR if development else logging.WARNING,
            f"the response of {origin or 'a request'} was sent before task {name!r} is stored, because its "
            "BackgroundTasks() was made outside the request, as in a thread, an executor or at module level. If the "
            "process dies in between, the task is lost after a 2xx. Make the object in the handler, or take it as a "
            "parameter",
        )


def never_committed(origin: str | None, names: Iterable[str]) -> None:
    write(
        logging.WARNING,
        f"{origin or 'tasks'}: {', '.join(names)} were added with a session that was never committed: "
        "they are not stored",
    )


def rolled_back(origin: str | None, names: Iterable[str]) -> None:
    write(
        logging.INFO,
        f"{origin or 'tasks'}: {', '.join(names)} were rolled back with their session: they are not stored",
    )


def lost_after_commit(error: BaseException, names: Iterable[str]) -> None:
    write(
        logging.ERROR,
        f"tasks could not be stored ({', '.join(names)}) after the commit of their session, which is in another "
        f"database: they are lost: {text_of(error)}",
        exc_info=unless_away(error),
    )


def refused_request(request: str, error: BaseException) -> None:
    write(
        logging.ERROR,
        f"{request} needs the task store, so it is answered with 503: {text_of(error)}",
        exc_info=unless_away(error),
    )


def mixed(origin: str | None) -> None:
    once(
        f"mixed {origin}",
        logging.WARNING,
        f"{origin or 'a request'} adds plain and @task functions: the plain ones run first, in any order of adding",
    )


def left_undone(name: str, what: str) -> None:
    once(f"left undone {name}", logging.WARNING, f"background task {name} returned {what}")


def not_recorded(name: str, error: BaseException) -> None:
    write(
        logging.WARNING,
        f"the failure of background task {name} could not be recorded: {text_of(error)}",
        extra={"task_name": name},
    )


def not_stored_in_time(seconds: float) -> None:
    write(
        logging.WARNING,
        f"a task that was added in a thread is not stored after {seconds:.0f} s: the event loop that stores it is "
        "blocked. The thread continues, and the task is stored when the loop does",
    )
