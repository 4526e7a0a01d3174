"""What a careless user is told about a misspelt or mistyped option."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from afterwards import Afterwards, InvalidOption, Retry, task

declare: Any = task
retry: Any = Retry


@task
def mistaken(name: str) -> None: ...


one_call: Any = mistaken.options


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (lambda: declare(rate_limt="10/m"), r"@task\(rate_limt=.*did you mean rate_limit\?.*max_concurrency.*name"),
        (lambda: declare(max_retries=3), r"did you mean retries\?"),
        (lambda: declare(foo=3), r"@task\(foo=\.\.\.\): there is no such option; There are aliases"),
        (lambda: declare(session=None), r"session is for one call, as f\.options\(session=\.\.\.\)"),
        (lambda: declare(aliases=5), r"aliases=5: give a sequence of names"),
        (lambda: one_call(countdown=5), r"options\(countdown=.*did you mean delay\?.*session"),
        (lambda: one_call(rate_limit="1/m"), r"rate_limit is for a function, as @task\(rate_limit=\.\.\.\)"),
        (lambda: retry(never="ValueError"), r"Retry\(never='ValueError'\): give exception classes"),
        (lambda: retry(wait="1"), r"Retry\(wait='1'\): give a number of seconds"),
        (lambda: retry(factor=float("nan")), r"Retry\(factor=nan\): give a number"),
        (lambda: retry(jitter="yes"), r"Retry\(jitter='yes'\): give True or False"),
        (lambda: Afterwards(FastAPI(), queues=5), r"queues=5: give a collection of names"),  # type: ignore[arg-type]
        (lambda: Afterwards(FastAPI(), propagate=5), r"propagate=5: give context variables"),  # type: ignore[arg-type]
    ],
)
def test_a_mistake_is_named_with_what_to_write(mistake: Callable[[], object], told: str) -> None:
    with pytest.raises(InvalidOption, match=told):
        mistake()
