"""Log lines about requests and the tasks that they add."""

import logging
from collections.abc import Collection, Iterable

from afterwards.core.text import text_of
from afterwards.telemetry.writing import once, write


def no_worker(engine: str) -> None:
    once(
        f"no worker {engine}",
        logging.WARNING,
        f"afterwards: a task was stored in {engine}, where no worker has ever run, so nothing may run it. Where the "
        "server keeps its tasks in another file, name that one: AFTERWARDS_URL=sqlite:////folder/afterwards.db in the "
        "environment of both, or the URL in Afterwards(app, ...)",
    )


def without_lifespan(engine: str) -> None:
    once(
        f"without lifespan {engine}",
        logging.INFO,
        "afterwards: the application runs without its lifespan (it is mounted inside another one, or its server runs "
        "none): the worker began with the first request",
    )


def injected_with_yield(version: str, stack: str) -> None:
    once(
        "injected with yield",
        logging.WARNING,
        f"afterwards: FastAPI {version} keeps no exit stack {stack!r} in a request's scope, so tasks are stored by a "
        "dependency with yield, which takes longer; the first request's are stored as its response begins, unless that "
        "is an error",
    )


def injected_everywhere(version: str) -> None:
    once(
        "injected everywhere",
        logging.WARNING,
        f"afterwards: FastAPI {version} does not show which of its routes ask for BackgroundTasks, so all routes that "
        "are added after Afterwards(app) get a dependency more; routes added before, and mounted applications, do not "
        "store tasks",
    )


def committed_late(origin: str | None, names: Collection[str]) -> None:
    for name in dict.fromkeys(names):
        once(
            f"committed late {name}",
            logging.WARNING,
            f"the response of {origin or 'a request'} leaves before task {name!r} is stored: its session commits "
            "later, and if the process dies in between, the rows and the task are lost after a 2xx. Commit in the "
            'endpoint, or have the dependency that commits end before the response: Depends(get_db, scope="function")',
        )


def not_stored(error: BaseException, names: Iterable[str], *, answered: bool) -> None:
    """A request's tasks could not be stored; ``answered`` when its response had already begun."""
    how = "after the response had begun: they are lost" if answered else "so the request is answered with 503"
    write(logging.ERROR, f"tasks could not be stored ({', '.join(names)}), {how}: {text_of(error)}", exc_info=error)


def never_committed(origin: str | None, names: Iterable[str]) -> None:
    write(
        logging.WARNING,
        f"{origin or 'tasks'}: {', '.join(names)} were added with a session, and that session was never committed: "
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
        f"tasks could not be stored ({', '.join(names)}) after the commit of their session, whose database is another "
        f"one: they are lost: {text_of(error)}",
        exc_info=error,
    )


def refused_request(request: str, error: BaseException) -> None:
    write(
        logging.ERROR, f"{request} needs the task store, so it is answered with 503: {text_of(error)}", exc_info=error
    )


def mixed(origin: str | None) -> None:
    once(
        f"mixed {origin}",
        logging.WARNING,
        f"{origin or 'a request'} adds plain and @task functions: the plain ones run first, whatever the order",
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
        "blocked. The thread goes on, and the task is stored when that loop does",
    )
