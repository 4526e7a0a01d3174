"""Celery workers begin, drain, end, are killed, and are replaced."""

import os
import re
import signal
from collections.abc import Callable
from time import monotonic

import pytest
from celery import Celery

from afterwards.core.told_to_end import PASSED_ON_WITHIN
from afterwards.dispatch.celery.orders import DRAIN, END
from afterwards.dispatch.celery.worker import order_of
from face.processes import Program
from fleet.harness import TIMEOUT, Fleet

MakeFleet = Callable[..., Fleet]

POOLS = ["prefork", "threads", "solo"]
NEVER = 3600
"""Seconds until a message is sent again: in such a test, nothing may depend on that."""


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools_run_tasks_too(make_fleet: MakeFleet, pool: str) -> None:
    fleet = make_fleet()
    fleet.worker("--concurrency", "3", pool=pool)
    fleet.web()
    for id in fleet.add_all(("note", "text"), ("note_in_thread", "text")):
        fleet.succeeded(id)
    [worker] = [one for one in fleet.http.get("/workers").json() if one["names"]]
    assert worker["slots"] == (3 if pool == "threads" else 1)


@pytest.mark.parametrize("pool", POOLS)
def test_a_function_that_runs_in_a_process_of_its_own_is_found_in_the_working_folder(
    make_fleet: MakeFleet, pool: str
) -> None:
    fleet = make_fleet()
    main = fleet.write_main()
    fleet.worker("--concurrency", "1", pool=pool, app=main)
    fleet.web(main)
    parent = fleet.succeeded(fleet.add("note_in_process", "apart"))["result"]
    assert f"{parent} begins" in fleet.diary()  # with the application's lifespan: a process of Celery's


def test_a_threads_pool_runs_as_many_tasks_as_it_has_threads(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.worker("--concurrency", "3", pool="threads")
    fleet.web()
    fleet.add_all(("gated", "gate"), ("gated_in_thread", "gate"), ("gated", "gate"), ordered=False)
    fleet.eventually(lambda: fleet.times(r"gate began in \d+") == 3, "three tasks at once")
    fleet.open("gate")


@pytest.mark.parametrize("pool", POOLS)
def test_a_warm_shutdown_gives_tasks_back_without_charging_an_attempt(make_fleet: MakeFleet, pool: str) -> None:
    fleet = make_fleet(again=NEVER, grace=0.5)
    worker = fleet.worker("--concurrency", "1", pool=pool)
    fleet.web()
    running = fleet.add("gated", "gate")
    fleet.wrote(r"gate began in \d+")
    behind = fleet.add("note", "behind")
    worker.signal(signal.SIGTERM)
    assert worker.ends(TIMEOUT) == 0, worker.output
    _is_uncharged(fleet, running)
    fleet.wrote(r"\d+ ends")  # the lifespan was left
    fleet.open("gate")
    fleet.worker("--concurrency", "1", pool=pool)
    assert fleet.succeeded(running)["attempt"] == 2
    fleet.succeeded(behind)


def test_processes_that_are_spawned_run_tasks_and_drain_too(make_fleet: MakeFleet) -> None:
    """Celery's default on macOS. They import the application anew, and inherit no open file."""
    fleet = make_fleet(again=NEVER, grace=0.5)
    worker = fleet.worker("--concurrency", "1", "--pool-start-method", "spawn")
    fleet.web()
    fleet.succeeded(fleet.add("note", "text"))
    fleet.succeeded(fleet.add("note_in_process", "apart"))
    running = fleet.add("gated", "gate")
    fleet.wrote(r"gate began in \d+")
    worker.signal(signal.SIGTERM)
    assert worker.ends(TIMEOUT) == 0, worker.output
    _is_uncharged(fleet, running)


def draining(fleet: Fleet, pool: str = "prefork") -> tuple[Program, str]:
    """Tell a worker to end while it runs a task, which waits for a gate. Returns the worker and the task's id."""
    worker = fleet.worker("--concurrency", "1", pool=pool)
    fleet.web()
    running = fleet.add("gated", "gate")
    fleet.wrote(r"gate began in \d+")
    worker.signal(signal.SIGTERM)
    worker.says("afterwards: draining")
    return worker, running


def test_a_task_may_end_within_the_grace_period(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(again=NEVER, grace=TIMEOUT)
    worker, running = draining(fleet)
    fleet.open("gate")
    assert fleet.succeeded(running)["attempt"] == 1
    assert worker.ends(TIMEOUT) == 0


def test_a_cold_shutdown_ends_the_grace_period(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(again=NEVER, grace=10 * TIMEOUT)
    worker, running = draining(fleet)
    worker.signal(signal.SIGQUIT)
    worker.ends(TIMEOUT)
    _is_uncharged(fleet, running)


@pytest.mark.parametrize(("pool", "second"), [*((pool, signal.SIGTERM) for pool in POOLS), ("prefork", signal.SIGINT)])
def test_a_second_signal_ends_the_grace_period(make_fleet: MakeFleet, pool: str, second: int) -> None:
    fleet = make_fleet(again=NEVER, grace=10 * TIMEOUT)
    worker, running = draining(fleet, pool)
    told = monotonic()  # or later than it was
    fleet.eventually(lambda: monotonic() - told >= PASSED_ON_WITHIN, "a signal that nobody passes on")
    worker.signal(second)
    worker.ends(TIMEOUT)
    _is_uncharged(fleet, running)


def test_a_signal_that_arrives_twice_at_once_is_one_request(make_fleet: MakeFleet) -> None:
    """A service manager signals the group of processes, and a parent passes its own on."""
    fleet = make_fleet(again=NEVER, grace=TIMEOUT)
    worker = fleet.worker("--concurrency", "1")
    fleet.web()
    running = fleet.add("gated", "gate")
    fleet.wrote(r"gate began in \d+")
    worker.signal(signal.SIGTERM)
    worker.says("Warm shutdown")  # two signals at the same instant may be one
    worker.signal(signal.SIGTERM)  # at once: after PASSED_ON_WITHIN it would be another request
    worker.says(r"(?s)Warm shutdown.*Warm shutdown")
    worker.says("afterwards: draining")
    fleet.open("gate")
    assert fleet.succeeded(running)["attempt"] == 1
    assert worker.ends(TIMEOUT) == 0


@pytest.mark.parametrize(
    ("how", "seconds", "order"), [("Warm", 0, DRAIN), ("Warm", 1.9, DRAIN), ("Warm", 2, END), ("Cold", 0, END)]
)
def test_a_later_signal_is_another_request(how: str, seconds: float, order: int) -> None:
    assert order_of(how, since_first=seconds) == order


def test_a_shutdown_by_remote_control_drains_too(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(again=NEVER, grace=0.5)
    worker = fleet.worker("--concurrency", "1")
    fleet.web()
    running = fleet.add("gated", "gate")
    fleet.wrote(r"gate began in \d+")
    [name] = re.findall(rf"({fleet.queue}-\d+@test) ready", worker.output)
    with Celery("control", broker=fleet.broker.url) as app:
        app.control.shutdown(destination=[name])
    worker.ends(TIMEOUT)
    _is_uncharged(fleet, running)


def test_a_signal_to_the_whole_group_gives_tasks_back(make_fleet: MakeFleet) -> None:
    """Service managers send one to the worker and to the processes of its pool."""
    fleet = make_fleet(again=NEVER)
    worker = fleet.worker("--concurrency", "1")
    fleet.web()
    running = fleet.add("gated", "gate")
    fleet.wrote(r"gate began in (\d+)")
    os.killpg(worker.process.pid, signal.SIGTERM)
    worker.ends(TIMEOUT)
    _is_uncharged(fleet, running)


def test_a_process_of_the_pool_that_alone_is_terminated_is_a_crash(make_fleet: MakeFleet) -> None:
    """Celery's ``revoke(terminate=True)`` does that."""
    fleet = make_fleet(again=NEVER, lease=3)
    fleet.worker("--concurrency", "1")
    fleet.web()
    running = fleet.add("gated", "gate")
    os.kill(int(fleet.wrote(r"gate began in (\d+)")[1]), signal.SIGTERM)
    fleet.eventually(lambda: fleet.times(r"gate began in \d+") == 2, "the task to run again")
    fleet.open("gate")
    assert _kinds(fleet.succeeded(running)) == ["crashed"]


def test_a_task_that_passes_celerys_hard_time_limit_does_not_run_for_ever(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(again=NEVER, lease=3)
    fleet.worker("--concurrency", "1", "--time-limit", "2")
    fleet.web()
    record = fleet.finished(fleet.add("gated", "gate"))
    assert (record["state"], {*_kinds(record)}) == ("failed", {"crashed"})


def test_a_killed_process_of_the_pool_is_a_crash(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(again=NEVER, lease=3)
    fleet.worker("--concurrency", "2")
    fleet.web()
    first, second = fleet.add_all(("gated", "gate"), ("note", "behind"))
    os.kill(int(fleet.wrote(r"gate began in (\d+)")[1]), signal.SIGKILL)
    fleet.eventually(lambda: fleet.times(r"gate began in \d+") == 2, "the task to run again")
    fleet.open("gate")
    assert _kinds(fleet.succeeded(first)) == ["crashed"]
    assert _kinds(fleet.succeeded(second)) == []


def test_what_a_killed_worker_had_runs_in_the_next_one(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(again=2, lease=3)
    worker = fleet.worker("--concurrency", "1")
    fleet.web()
    running = fleet.add("gated", "gate")
    fleet.wrote(r"gate began in \d+")
    waiting = [fleet.add("note", f"waits-{number}") for number in range(3)]
    os.killpg(worker.process.pid, signal.SIGKILL)
    fleet.open("gate")
    fleet.worker("--concurrency", "1")
    assert _kinds(fleet.succeeded(running)) == ["crashed"]
    for id in waiting:
        assert fleet.succeeded(id)["attempt"] == 1


def test_purged_messages_are_sent_again(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(again=1)
    fleet.web()
    ids = [fleet.add("note", f"purged-{number}") for number in range(3)]
    fleet.eventually(lambda: fleet.waiting() >= 3, "the messages to be sent")
    assert fleet.purge() >= 3
    fleet.worker("--concurrency", "1")
    for id in ids:
        assert fleet.succeeded(id)["attempt"] == 1


def test_processes_of_the_pool_are_replaced(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(tasks_per_child=2, again=2)
    fleet.worker("--concurrency", "1")
    fleet.web()
    for number in range(6):
        fleet.succeeded(fleet.add("note", f"text-{number}"))
    assert len({line.split()[-1] for line in fleet.diary() if line.startswith("text-")}) >= 3
    fleet.eventually(lambda: fleet.times(r"\d+ ends") >= 2, "the lifespans to be left")


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_whose_application_cannot_start_ends_with_an_error(make_fleet: MakeFleet, pool: str) -> None:
    fleet = make_fleet(again=2)
    fleet.open("no-lifespan")
    worker = fleet.worker("--concurrency", "2", pool=pool, ready=False)
    assert worker.ends(TIMEOUT) == 1, worker.output
    assert "the application did not start: ConnectionError: the warehouse does not answer" in worker.output
    fleet.shut("no-lifespan")
    fleet.web()
    id = fleet.add("note", "text")
    fleet.worker("--concurrency", "1")
    fleet.succeeded(id)


def test_pools_of_greenlets_are_refused(make_fleet: MakeFleet) -> None:
    """Eventlet's is refused by the same rule. Other packages behave differently where it is installed."""
    fleet = make_fleet()
    worker = fleet.worker(pool="gevent", ready=False)
    assert worker.ends(TIMEOUT) == 1, worker.output
    assert "afterwards: Celery's pool 'gevent' cannot run tasks of afterwards" in worker.output
    assert "--pool prefork, threads or solo" in worker.output


def test_two_installations_on_one_celery_app_are_refused_by_a_worker(make_fleet: MakeFleet) -> None:
    worker = make_fleet().worker("--concurrency", "1", app="fleet.apps.twice", ready=False)
    assert worker.ends(TIMEOUT) == 1, worker.output
    assert "two installations use this Celery app" in worker.output


def test_a_worker_that_would_not_read_our_messages_does_not_start(make_fleet: MakeFleet) -> None:
    worker = make_fleet(accept="yaml").worker("--concurrency", "1", ready=False)
    assert worker.ends(TIMEOUT) == 1, worker.output
    assert "accept_content does not have 'json'" in worker.output


def test_a_worker_with_q_serves_these_queues_only(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.worker("--concurrency", "1", "-Q", f"{fleet.queue}-other")
    fleet.web()
    waits = fleet.add("note", "waits")
    fleet.succeeded(fleet.add("note_elsewhere", "elsewhere"))
    [worker] = [one for one in fleet.http.get("/workers").json() if one["names"]]
    assert worker["queues"] == [f"{fleet.queue}-other"]
    assert fleet.record(waits)["state"] == "queued"


def test_urgent_messages_overtake(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(again=NEVER)
    fleet.web()
    ids = []
    for priority in (-100, 0, 100):
        ids.append(fleet.add("note", f"priority-{priority}", priority=priority))
        fleet.eventually(lambda: fleet.waiting() == len(ids), "the message to be sent")
    fleet.worker("--concurrency", "1", pool="solo")
    for id in ids:
        fleet.succeeded(id)
    ran = [line.split()[0] for line in fleet.diary() if line.startswith("priority-")]
    assert ran == ["priority-100", "priority-0", "priority--100"]


def test_celerys_soft_time_limit_does_not_stop_our_tasks(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(soft_limit=0.3)
    worker = fleet.worker("--concurrency", "1")
    fleet.web()
    id = fleet.add("gated", "gate")
    worker.says("Celery's soft time limit does not stop tasks of afterwards")
    fleet.open("gate")
    assert fleet.succeeded(id)["attempt"] == 1


def test_a_fleet_runs_the_tasks_of_a_postgresql_store(make_fleet: MakeFleet, postgres_url: str) -> None:
    fleet = make_fleet(url=postgres_url, again=NEVER, lease=3)
    fleet.worker("--concurrency", "2")
    fleet.web()
    assert fleet.succeeded(fleet.add("second_try", "twice"))["attempt"] == 2
    running, behind = fleet.add_all(("gated", "gate"), ("note", "behind"))
    os.kill(int(fleet.wrote(r"gate began in (\d+)")[1]), signal.SIGKILL)
    fleet.open("gate")
    assert _kinds(fleet.succeeded(running)) == ["crashed"]
    fleet.succeeded(behind)


def _is_uncharged(fleet: Fleet, id: str) -> None:
    record = fleet.eventually(lambda: _if_queued(fleet.record(id)), "the task to be given back")
    assert _kinds(record) == ["released"]


def _if_queued(record: dict[str, object]) -> dict[str, object] | None:
    return record if record["state"] == "queued" else None


def _kinds(record: dict[str, object]) -> list[str]:
    failures = record["failures"]
    assert isinstance(failures, list)
    return [failure["kind"] for failure in failures]
