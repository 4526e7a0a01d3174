"""Which tasks no worker would take."""

from dataclasses import replace
from datetime import timedelta

import pytest

from afterwards.core.routing import Backlog, LiveWorker, Route, Unroutable, unroutable, unserved
from afterwards.testing.clock import START

GREET = Route("greet", "default")


def worker(*names: str, queues: frozenset[str] | None = None) -> LiveWorker:
    return LiveWorker(
        id="worker", host="host", pid="1", started_at=START, names=frozenset(names), queues=queues, slots=1
    )


@pytest.mark.parametrize(
    "workers",
    [
        [worker("greet")],
        [worker("greet", queues=frozenset({"default"}))],
        [worker("thank"), worker("greet", queues=frozenset({"mail"})), worker("greet")],
    ],
)
def test_a_route_is_served_when_one_worker_knows_the_name_and_serves_the_queue(workers: list[LiveWorker]) -> None:
    assert unserved([GREET], workers) == {}


@pytest.mark.parametrize(
    ("workers", "reason"),
    [
        ([], "no worker lives"),
        ([replace(worker(), slots=0)], "no worker lives"),  # it dispatches to a fleet of which nobody lives
        ([worker("thank")], "no live worker knows it"),
        ([worker("thank", queues=frozenset({"default"}))], "no live worker knows it"),
        (
            [worker("greet", queues=frozenset({"mail"})), worker("thank")],
            "no live worker that knows it serves queue default",
        ),
        ([worker("greet", queues=frozenset())], "no live worker that knows it serves queue default"),
    ],
)
def test_the_reason_says_what_is_missing(workers: list[LiveWorker], reason: str) -> None:
    assert unserved([GREET], workers) == {GREET: reason}


def test_only_what_is_not_served_is_named() -> None:
    other = Route("other", "default")
    assert unserved([GREET, other], [worker("greet")]) == {other: "no live worker knows it"}
    assert unserved([], []) == {}


def test_what_waits_longest_comes_first_each_with_its_reason() -> None:
    other = Route("other", "mail")
    backlog = [
        Backlog(route=GREET, count=2, since=START),
        Backlog(route=other, count=1, since=START - timedelta(hours=1)),
    ]
    assert unroutable(backlog, {GREET: "this", other: "that"}) == [
        Unroutable(name="other", queue="mail", count=1, since=START - timedelta(hours=1), reason="that"),
        Unroutable(name="greet", queue="default", count=2, since=START, reason="this"),
    ]
