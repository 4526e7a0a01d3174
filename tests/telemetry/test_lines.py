"""Every line about a task has its fields, in the logger of its subject."""

import logging
from typing import Any

import pytest

from afterwards import Cancel, Retry, Snooze, task
from face.serving import finished, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task(retries=Retry(1, wait=0))
async def fail() -> None:
    raise ValueError("no")


@task
async def cancel() -> None:
    raise Cancel("not today")


@task
async def succeed() -> None: ...


@task
async def return_what_cannot_be_stored() -> object:
    return object()


slept: list[int] = []


@task
async def snooze() -> None:
    if not slept:
        slept.append(1)
        raise Snooze(0.01)


async def test_each_line_about_an_attempt_says_task_name_attempt_and_state(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    slept.clear()
    caplog.set_level(logging.DEBUG, "afterwards")
    functions: list[Any] = [fail, cancel, succeed, snooze, return_what_cannot_be_stored]
    async with working(url):
        for function in functions:
            await finished(await function.enqueue())
    about = [record for record in caplog.records if record.name == "afterwards.tasks"]
    fields = [(r.task_name, r.attempt, r.state) for r in about if r.task]  # type: ignore[attr-defined]
    assert fields == [
        ("fail", 1, "scheduled"),
        ("fail", 2, "failed"),
        ("cancel", 1, "cancelled"),
        ("succeed", 1, "succeeded"),
        ("snooze", 1, "scheduled"),
        ("snooze", 2, "succeeded"),
        ("return_what_cannot_be_stored", 1, "succeeded"),
        ("return_what_cannot_be_stored", 1, "succeeded"),
    ]


async def test_lines_are_in_the_loggers_of_their_subjects(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "afterwards")
    async with working(url):
        pass
    assert [record.name for record in caplog.records if "worker here" in record.message] == ["afterwards.worker"]
