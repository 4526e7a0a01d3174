"""What `afterwards check` says of Celery's workers, in bounded time, whatever the broker does."""

import pytest

from afterwards.core.problems import ProblemKind
from afterwards.core.task import NewTask, task_id
from afterwards.dispatch.celery.inspection import _of_workers, troubles
from afterwards.dispatch.celery.message import NAME
from afterwards.dispatch.fleet import Inspected
from afterwards.engines.memory import MemoryEngine
from afterwards.tasks.fleet_check import unserved_tasks
from afterwards.testing.clock import FakeClock
from celery_calls.broker import an_address_where_nobody_listens, an_application, one_that_hangs

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("transport", ["amqp", "redis"])
async def test_a_broker_that_does_not_answer_is_named_without_its_password(transport: str) -> None:
    with one_that_hangs() as hanging:
        for address in (an_address_where_nobody_listens(), hanging):
            [said] = await troubles(an_application(f"{transport}://:secret@{address}"))
            assert said.startswith(f"Celery's broker {transport}://")
            assert "does not answer" in said
            assert "secret" not in said


async def test_without_workers_it_says_how_to_start_one() -> None:
    [said] = await troubles(an_application())
    assert said.startswith("no Celery worker answers: start one with `celery -A main:celery_app worker`")


def test_one_worker_that_knows_the_application_is_enough() -> None:
    assert _of_workers({"celery@a": ["mail"], "celery@b": ["mail", NAME]}) == ()
    [said] = _of_workers({"celery@b": ["mail"], "celery@a": []})
    assert said.startswith("no Celery worker knows 'afterwards.run' (celery@a, celery@b)")


def test_celery_dispatch_can_be_asked() -> None:
    from afterwards.celery import CeleryDispatch

    assert isinstance(CeleryDispatch(an_application()), Inspected)


async def test_tasks_that_no_live_worker_would_take_are_counted_by_function(clock: FakeClock) -> None:
    async with MemoryEngine(clock=clock) as engine:
        ids = [task_id(clock(), number.to_bytes(10, "big")) for number in range(3)]
        names = ("send", "send", "resize")
        await engine.enqueue([NewTask(id=id, name=name, arguments="{}") for id, name in zip(ids, names, strict=True)])
        found = await unserved_tasks(engine)
    assert [(one.name, one.what, one.count, one.reason) for one in found] == [
        ("resize", ProblemKind.WORKER, 1, "no worker lives"),
        ("send", ProblemKind.WORKER, 2, "no worker lives"),
    ]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
