"""Which calls a test finds."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated

import pytest
from fastapi import Depends
from fastapi.testclient import TestClient

from afterwards import BackgroundTasks, Retry, task
from afterwards.core.errors import InvalidOption
from afterwards.testing import assert_enqueued, assert_not_enqueued, clock, drain
from testing.application import app


@task(retries=Retry(2, wait=30))
def remind(email: str, copies: int = 1, by: Annotated[str, Depends(lambda: "injected")] = "") -> None:
    raise ConnectionError("away")


@task
def ship(order: int, priority: str, delay: int = 3) -> None:
    """Has parameters with the names of options."""


@app.post("/remind/{email}")
def ask(email: str, background_tasks: BackgroundTasks, delay: float | None = None, run_at: datetime | None = None):
    options = {"delay": delay} if run_at is None else {"run_at": run_at}
    background_tasks.add_task(remind.options(**options, queue="mail", priority=5), email)


@pytest.fixture
def client() -> TestClient:
    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize("delay", [60, 0.25, timedelta(days=2)])
def test_a_call_is_found_by_its_delay(client: TestClient, delay: float | timedelta) -> None:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    client.post("/remind/a", params={"delay": seconds})
    assert_enqueued(remind, email="a", delay=delay)
    assert_enqueued(remind, delay=timedelta(seconds=seconds), run_at=clock()() + timedelta(seconds=seconds))
    assert_not_enqueued(remind, delay=seconds + 0.001)
    assert_not_enqueued(remind, delay=0)


def test_a_delay_is_known_after_the_task_has_run_and_been_retried(client: TestClient) -> None:
    client.post("/remind/a", params={"delay": 60})
    with pytest.raises(ConnectionError):
        drain(scheduled=True)
    assert assert_enqueued(remind, delay=60).attempt == 3


def test_a_call_without_a_delay_has_none_even_when_it_waits_for_a_retry(client: TestClient) -> None:
    client.post("/remind/a")
    assert assert_enqueued(remind, delay=0, run_at=clock()()).retrying
    assert_not_enqueued(remind, delay=30)


def test_a_call_is_found_by_its_instant_in_any_time_zone(client: TestClient) -> None:
    at = datetime(2100, 1, 1, 12, tzinfo=UTC)
    client.post("/remind/a", params={"run_at": at.isoformat()})
    assert_enqueued(remind, run_at=at.astimezone(timezone(timedelta(hours=2))))
    assert_not_enqueued(remind, run_at=at + timedelta(microseconds=1))


def test_a_call_is_found_by_its_queue_and_priority(client: TestClient) -> None:
    client.post("/remind/a", params={"delay": 1})
    assert_enqueued(remind, queue="mail", priority=5)
    assert_not_enqueued(remind, queue="default")
    assert_not_enqueued(remind, queue="mail", priority=0)


def test_the_newest_of_several_is_given() -> None:
    first, second = remind.enqueue_sync("a"), remind.enqueue_sync("a", copies=2)
    assert assert_enqueued(remind, email="a").id == second.id
    assert assert_enqueued(remind, email="a", copies=1).id == first.id


def test_an_argument_that_was_left_to_its_default_has_it() -> None:
    remind.enqueue_sync("a")
    with pytest.raises(AssertionError, match="a call of remind with copies=1 was stored"):
        assert_not_enqueued(remind, copies=1)


def test_a_parameter_with_the_name_of_an_option_is_the_argument() -> None:
    ship.options(delay=60, priority=7).enqueue_sync(1, "express")
    assert_enqueued(ship, priority="express", delay=3)
    assert_not_enqueued(ship, priority=7)
    assert_not_enqueued(ship, delay=60)


def test_what_was_stored_is_listed_with_its_options(client: TestClient) -> None:
    client.post("/remind/a@example.org", params={"delay": 90})
    at = (clock()() + timedelta(seconds=90)).isoformat()
    with pytest.raises(AssertionError) as refused:
        assert_enqueued(remind, email="b@example.org", delay=60)
    assert str(refused.value) == (
        "no call of remind with email='b@example.org', delay=60 was stored; its calls:\n"
        f"  remind(copies=1, email='a@example.org'): delay=90, run_at={at}, queue='mail', priority=5"
    )
    with pytest.raises(AssertionError, match=r"a call of remind was stored:\n  remind\(copies=1, email='a@example"):
        assert_not_enqueued(remind)


@pytest.mark.parametrize("check", [assert_enqueued, assert_not_enqueued])
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"emial": "a"}, "task 'remind' has no argument 'emial': give 'email', 'copies', or 'delay'"),
        ({"by": "injected"}, "no argument 'by'"),
        ({"delay": "soon"}, "delay='soon': give seconds"),
        ({"run_at": datetime(2100, 1, 1)}, "give an aware datetime"),
        ({"run_at": None}, "give an aware datetime"),
    ],
)
def test_a_question_that_nothing_could_answer_is_refused(check, asked: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        check(remind, **asked)


def test_a_plain_function_is_refused() -> None:
    with pytest.raises(InvalidOption, match="is not a task function"):
        assert_not_enqueued(print)  # type: ignore[arg-type]
