"""With our class, on plain functions or on task functions, everything happens as with FastAPI's, or as we allow."""

import os
from collections.abc import Iterator

import pytest

from differential.allowed import ALLOWED, DURABLE, expected
from differential.catalogue import SITUATIONS
from differential.kit import Variant
from differential.running import Runs

pytestmark = pytest.mark.xdist_group("differential")  # one process, so that each situation runs once

OURS = [variant for variant in Variant if variant is not Variant.STOCK]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    with Runs() as runs:
        in_parts = "PYTEST_XDIST_WORKER" in os.environ and not getattr(request.config.option, "loadgroup", False)
        if not in_parts:  # else nobody knows which tests come to this process
            runs.begin(_wanted(request.session.items))
        yield runs


def _wanted(items: list[pytest.Item]) -> Iterator[tuple[str, Variant]]:
    for item in items:
        if isinstance(item, pytest.Function) and item.module.__name__ == __name__:
            yield item.callspec.params["situation"], item.callspec.params.get("variant", Variant.STOCK)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_stock_does_the_same_twice(runs: Runs, situation: str) -> None:
    once, again = runs.observed(situation, Variant.STOCK), runs.observed_again(situation)
    assert once == again, f"{once.log}\n{again.log}"


@pytest.mark.parametrize("variant", OURS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_we_do_as_stock_or_as_allowed(runs: Runs, situation: str, variant: Variant) -> None:
    observed = runs.observed(situation, variant)
    assert observed == expected(situation, variant, runs.observed(situation, Variant.STOCK)), observed.log


@pytest.mark.parametrize(("situation", "variant"), ALLOWED)
def test_what_is_allowed_is_a_difference(runs: Runs, situation: str, variant: Variant) -> None:
    stock = runs.observed(situation, Variant.STOCK)
    assert expected(situation, variant, stock) != stock or ALLOWED[situation, variant].newer_versions_do_so


@pytest.mark.parametrize("variant", DURABLE)
@pytest.mark.parametrize(
    ("situation", "sent", "task"),
    [
        ("in_an_async_handler", "POST /: sent", "note from the handler: starts"),
        ("begins_behind_http_middleware", "POST /: sent", "async note behind: starts"),
        ("behind_middleware_that_answers_itself", "POST /: sent", "async note of the response that nobody saw: starts"),
        ("set_by_middleware", "POST /: sent", "async note audit / 200: starts"),
        ("task_of_a_stream_that_takes_its_time", "GET /stream: sent", "note of the stream: starts"),
    ],
)
def test_no_task_starts_before_its_response_was_sent(
    runs: Runs, situation: str, sent: str, task: str, variant: Variant
) -> None:
    events = runs.observed(situation, variant).events
    assert events.index(sent) < events.index(task)


@pytest.mark.parametrize("variant", DURABLE)
@pytest.mark.parametrize(
    ("situation", "committed", "task"),
    [
        ("commit_that_takes_its_time", "session: has committed", "note slow: starts"),
        ("what_the_request_commits", "tea: committed", "tea: the task sees it"),
    ],
)
def test_no_task_starts_before_its_session_has_committed(
    runs: Runs, situation: str, committed: str, task: str, variant: Variant
) -> None:
    events = runs.observed(situation, variant).events
    assert events.index(committed) < events.index(task)
