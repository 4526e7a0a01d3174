"""What a careless user is told about a misspelt or mistyped option."""

import asyncio
import pickle
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI

from afterwards import (
    Afterwards,
    BackgroundTasks,
    InvalidOption,
    InvalidTaskFunction,
    Retry,
    RetryAfter,
    Snooze,
    progress,
    task,
)

declare: Any = task
retry: Any = Retry


@task
def mistaken(name: str) -> None: ...


@task
async def mistaken_too(name: str) -> None: ...


@task
def takes_nothing() -> None: ...


def takes_two(task: object, failed: object) -> None: ...


one_call: Any = mistaken.options
install: Any = Afterwards
tasks: Any = BackgroundTasks
wrong: Any = "x"


def desk() -> Any:
    return Afterwards(FastAPI(), "memory://")


def router(**settings: Any) -> object:
    return desk().router(mistaken, **settings)


def run(asked: Coroutine[Any, Any, object]) -> object:
    return asyncio.run(asked)


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (lambda: declare(rate_limt="10/m"), r"@task\(rate_limt=.*did you mean rate_limit\?.*max_concurrency.*name"),
        (lambda: declare(max_retries=3), r"did you mean retries\?"),
        (lambda: declare(foo=3), r"@task\(foo=\.\.\.\): there is no such option; The options are aliases"),
        (lambda: declare(session=None), r"session is for one call, as f\.options\(session=\.\.\.\)"),
        (lambda: declare(aliases=5), r"aliases=5: give a sequence of names"),
        (lambda: one_call(countdown=5), r"options\(countdown=.*did you mean delay\?.*session"),
        (lambda: one_call(rate_limit="1/m"), r"rate_limit is for a function, as @task\(rate_limit=\.\.\.\)"),
        (lambda: retry(never="ValueError"), r"Retry\(never='ValueError'\): give exception classes"),
        (lambda: retry(wait="1"), r"Retry\(wait='1'\): give a number of seconds"),
        (lambda: retry(factor=float("nan")), r"Retry\(factor=nan\): give a number"),
        (lambda: retry(max_retries=3), r"Retry\(max_retries=\.\.\.\).*did you mean times\?.*factor.*jitter"),
        (lambda: retry(3, wiat=2), r"did you mean wait\?"),
        (lambda: retry(3, on=()), r"Retry\(on=\(\)\): no exception would be retried"),
        (lambda: retry(wait=timedelta(seconds=-1)), r"Retry\(wait=-1\.0, .*wait is at least 0"),
        (lambda: retry(jitter="yes"), r"Retry\(jitter='yes'\): give True or False"),
        (lambda: Afterwards(FastAPI(), queues=5), r"queues=5: give a collection of names"),  # type: ignore[arg-type]
        (lambda: Afterwards(FastAPI(), propagate=5), r"propagate=5: give context variables"),  # type: ignore[arg-type]
        (lambda: install(concurency=3), r"Afterwards\(concurency=.*did you mean concurrency\?.*max_queued.*worker"),
        (lambda: install(workers=3), r"did you mean concurrency\?"),
        (lambda: install(lease=0), r"^lease=0: three heartbeats"),
        (lambda: install(lease=timedelta(0)), r"^lease=datetime\.timedelta\(0\): three heartbeats"),
        (lambda: install(lease=86400), r"^lease=86400: an hour at most; it is renewed while a task runs"),
        (lambda: install(lease=timedelta(days=1)), r"^lease=datetime\.timedelta\(days=1\): an hour at most"),
        (lambda: install(max_file_size=None), r"max_file_size=None: give a whole number"),
        (lambda: install(threads=None), r"threads=None: give a whole number"),
        (lambda: install(url=5), r"url=5: give a text, as 'sqlite:///tasks\.db'"),
        (lambda: tasks().configure(order=True), r"configure\(order=.*did you mean ordered\?.*idempotency_key"),
        (lambda: tasks().configure(key="a"), r"did you mean idempotency_key\?"),
        (lambda: RetryAfter("30"), r"^RetryAfter, delay='30': give seconds, or a timedelta"),  # type: ignore[arg-type]
        (lambda: Snooze(None), r"^Snooze, delay=None: give seconds"),  # type: ignore[arg-type]
        (lambda: RetryAfter(-1), r"^RetryAfter, delay=-1 is negative"),
        (lambda: declare(on_failure="mail"), r"on_failure=.mail.: a value of type str is no function.*`on_failure=f`"),
        (lambda: declare(on_failure=mistaken_too("a")), r"`on_failure=mistaken_too\(1\)` called mistaken_too already"),
        (
            lambda: declare(on_failure=takes_nothing),
            r"on_failure=takes_nothing cannot be called with one argument, the F",
        ),
        (lambda: declare(on_failure=takes_two), r"on_failure=takes_two .*write `def tell\(failed: FailedTask\)`"),
        (lambda: declare(on_failure=lambda *, failed: None), r"on_failure=<lambda> cannot be called with one argument"),
        (lambda: declare(cron="0 3 * * *", timezone="UTC"), r"did you mean tz\?"),
        (lambda: declare(rate="10/m"), r"did you mean rate_limit\?"),
        (lambda: install(path="tasks.db"), r"did you mean url\?"),
        (lambda: install(broker="redis://"), r"did you mean url\?"),
        (lambda: progress([1], total=wrong), r"^progress\(total='x'\): give a number"),
        (lambda: progress(initial=wrong), r"^progress\(initial='x'\): give a number"),
        (lambda: router(owner=bool, result=5), r"^router\(result=5\): give a type"),
        (lambda: router(owner=bool, errors="yes"), r"^router\(errors='yes'\): give True or False"),
        (lambda: run(desk().get(key="a", function=takes_two)), r"^tasks\.get\(function=.*give a task function"),
        (
            lambda: run(desk().requeue(mistaken)),
            r"^tasks\.requeue\(.*without a keyword: write tasks\.requeue\(name=mis",
        ),
        (lambda: run(desk().cancel("an-id")), r"^tasks\.cancel\('an-id'\).*give state=.*await tasks\.get\(id\)"),
        (lambda: run(desk().start_now(mistaken)), r"^tasks\.start_now\(.*write tasks\.start_now\(name=mistaken\)"),
        (lambda: run(desk().delete(mistaken)), r"^tasks\.delete\(.*write tasks\.delete\(name=mistaken\)"),
        (lambda: run(desk().list(mistaken)), r"^tasks\.list\(.*write tasks\.list\(name=mistaken\)"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(mistake: Callable[[], object], told: str) -> None:
    with pytest.raises(InvalidOption, match=told):
        mistake()


def test_a_misspelt_keyword_is_a_type_error_too() -> None:
    for mistake in (lambda: declare(retrys=1), lambda: retry(timse=1), lambda: install(thread=1)):
        with pytest.raises(TypeError, match="did you mean"):
            mistake()


@pytest.mark.parametrize(
    "told", [mistaken, takes_two, print, [].append, lambda *failed: None, lambda failed, more=1: None]
)
def test_whoever_can_be_told_of_a_failure_is_accepted(told: Any) -> None:
    if told is takes_two:
        told = partial(takes_two, object())
    declare(on_failure=told)


def test_waits_may_be_given_as_timedeltas() -> None:
    given = Retry(3, wait=timedelta(seconds=2), max_wait=timedelta(minutes=1), on=ValueError)
    assert given == Retry(3, wait=2, max_wait=60, on=(ValueError,))
    assert replace(given, times=4).wait == 2
    assert pickle.loads(pickle.dumps(given)) == given


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (mistaken, "it is a task function already: decorate a `def`"),
        (mistaken_too, "it is a task function already"),
        (task, "it is the decorator itself"),
    ],
)
def test_what_task_cannot_decorate_is_named(given: Any, told: str) -> None:
    with pytest.raises(InvalidTaskFunction, match=told):
        declare(given)


def test_none_is_no_function_to_be_decorated() -> None:
    with pytest.raises(InvalidTaskFunction, match="found NoneType instead of a function"):
        declare(None)
