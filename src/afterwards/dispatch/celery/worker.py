"""Follows the life of a Celery worker: its pool, its queues, when its processes begin, and when they are to end.

Celery documents all that is used here: signals, bootsteps, and adding queues after its set-up.
"""

import atexit
from collections.abc import Callable, Collection
from time import monotonic
from typing import Any

from celery import Celery, bootsteps, signals
from celery.concurrency.prefork import TaskPool as Prefork

from afterwards.core.told_to_end import PASSED_ON_WITHIN
from afterwards.dispatch.celery.orders import DRAIN, END, Orders
from afterwards.dispatch.celery.process import Process
from afterwards.telemetry import fleet

JSON = frozenset({"json", "application/json"})
"""The names of the format of our messages in Celery's settings."""

POOL = "celery.worker.components:Pool"


class FleetStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """The part of a Celery worker that is ours. There is one class for each installation."""

    requires = (POOL,)  # started after it, and told to end before it
    life: "WorkerLife"

    def create(self, worker: Any) -> None:
        """Raise SystemExit if this worker could not run our tasks. Its text is what the user sees."""
        if problem := _problem_of(worker):
            raise SystemExit(f"afterwards: {problem}")

    def start(self, worker: Any) -> None:
        self.life.began(worker)

    def close(self, worker: Any) -> None:
        self.life.order(DRAIN)

    def stop(self, worker: Any) -> None:
        self.life.order(DRAIN)

    def terminate(self, worker: Any) -> None:
        self.life.order(END)
        self.life.over()


class WorkerLife:
    """The life of the Celery worker in this process. Nothing happens in a process that is none."""

    def __init__(
        self,
        app: Celery,
        process: Process,
        our_queues: Callable[[], Collection[str]],
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._app = app
        self._process = process
        self._our_queues = our_queues
        self._clock = clock
        self._first_signal: float | None = None
        self._given_queues = False
        self._excluded: frozenset[str] = frozenset()
        self._orders: Orders | None = None
        self._in_main = False

    def follow(self) -> None:
        """Have Celery tell us. Called when the application is imported, which happens in all processes."""
        self._app.steps["worker"].add(type("FleetStep", (FleetStep,), {"life": self}))
        for each, handler in (
            (signals.celeryd_init, self._options_known),
            (signals.celeryd_after_setup, self._set_up),
            (signals.worker_shutting_down, self._told_to_end),
            (signals.worker_shutdown, self._shut_down),
            (signals.worker_process_init, self._process.begin_in_child),
            (signals.worker_process_shutdown, self._process.end_in_child),
        ):
            each.connect(handler, weak=False, dispatch_uid=(id(self), each.name))

    def began(self, worker: Any) -> None:
        """Begin to run tasks here, if the pool has no processes of its own."""
        orders = self._orders = self._orders or Orders(frozenset(worker.app.amqp.queues.consume_from))
        self._in_main = not issubclass(worker.pool_cls, Prefork)
        if self._in_main:
            self._process.begin(orders.pool, slots=worker.concurrency if _has_threads(worker) else 1)

    def order(self, order: int) -> None:
        """Tell all processes that run tasks to drain, or to end. Signal handlers call this."""
        if self._in_main:
            self._process.drain(order + 1)
        elif self._orders is not None:
            self._orders.give(order)

    def over(self) -> None:
        """End what runs here."""
        if self._in_main:
            self._process.end()
        if self._orders is not None:
            self._orders.close()

    def _options_known(self, instance: Any, options: dict[str, Any], **_: Any) -> None:
        if instance.app is self._app:
            self._given_queues = bool(options.get("queues"))
            self._excluded = frozenset(_listed(options.get("exclude_queues")))

    def _set_up(self, instance: Any, **_: Any) -> None:
        """Consume the queues of all task functions, unless the worker was started with -Q."""
        if instance.app is not self._app:
            return
        queues = instance.app.amqp.queues
        if not self._given_queues:
            for name in sorted({*self._our_queues()} - self._excluded):
                try:
                    queues.select_add(queues[name])
                except KeyError:
                    fleet.no_queue(name, "Celery's setting task_queues does not have it")
        self._orders = Orders(frozenset(queues.consume_from))
        atexit.register(self._orders.close)

    def _told_to_end(self, how: str, **_: Any) -> None:
        now = self._clock()
        if self._first_signal is None:
            self._first_signal = now
        self.order(order_of(how, since_first=now - self._first_signal))

    def _shut_down(self, **_: Any) -> None:
        self.over()
        if self._orders is not None and self._orders.failed:
            raise SystemExit(1)  # Celery would end as if all were well


def order_of(how: str, *, since_first: float) -> int:
    """Return the order that a signal asks for, so many seconds after the first one. ``how`` is Celery's word.

    Celery says "Cold" for a SIGINT after a SIGINT, and "Warm" for every SIGTERM.
    """
    return DRAIN if how == "Warm" and since_first < PASSED_ON_WITHIN else END


def _problem_of(worker: Any) -> str | None:
    if len(_steps_of(worker.app)) > 1:
        return (
            "two installations use this Celery app for dispatch=CeleryDispatch(...). A worker runs the tasks of one: "
            "give each a Celery app of its own, and queues that the other does not have"
        )
    if getattr(worker.pool_cls, "is_green", False):
        pool = worker.pool_cls.__module__.rpartition(".")[2]
        return (
            f"Celery's pool {pool!r} cannot run tasks of afterwards, because it replaces what an event loop needs: "
            "start the worker with --pool prefork, threads or solo"
        )
    if JSON.isdisjoint(worker.app.conf.accept_content or ()):
        return "Celery's setting accept_content does not have 'json', which our messages are written in: add it"
    return None


def _steps_of(app: Celery) -> list[type[FleetStep]]:
    """Return the steps of our installations."""
    return [step for step in app.steps["worker"] if isinstance(step, type) and issubclass(step, FleetStep)]


def _has_threads(worker: Any) -> bool:
    return bool(worker.pool_cls.__module__ == "celery.concurrency.thread")


def _listed(names: Any) -> list[str]:
    return names.split(",") if isinstance(names, str) else [*(names or ())]
