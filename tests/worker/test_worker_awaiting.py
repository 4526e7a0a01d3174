"""A task that waits for another task's result takes no slot meanwhile; one that waits in vain is told of."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import anyio.from_thread
import pytest

from afterwards import TaskContext, TaskFailed, TaskHandle, task
from afterwards.client import handle
from afterwards.client.installations import the_client
from face.diary import note
from face.diary import said as the_diary
from face.serving import until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task
async def ask_another(text: str) -> str:
    return await (await note.enqueue(text)).result()


@task
def answer_in_a_thread(text: str) -> str:
    return text


@task
def ask_from_a_thread(text: str) -> str:
    async def ask() -> str:
        return await (await answer_in_a_thread.enqueue(text)).result()

    return anyio.from_thread.run(ask)


@task
async def wait_for_the_one_before(number: int) -> int:
    await until(lambda: number == 0 or f"{number - 1} is known" in the_diary)
    return number


@task
async def ask_several(numbers: int) -> list[int]:
    async def known(handle: TaskHandle[int]) -> int:
        number = await handle.result()
        the_diary.append(f"{number} is known")
        return number

    handles = [await wait_for_the_one_before.enqueue(number) for number in range(numbers)]
    return await asyncio.gather(*map(known, handles))


@task
async def ask_who_asks(text: str) -> str:
    return await (await ask_another.enqueue(text)).result()


@task(max_concurrency=1)
async def count_down(number: int) -> int:
    return await (await count_down.enqueue(number - 1)).result(timeout=30) if number else 0


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_others_have_its_slot(url: str, said: list[str], concurrency: int) -> None:
    async with working(url, concurrency=concurrency):
        asked = [await ask_another.enqueue(str(number)) for number in range(concurrency)]
        answers = [await one.result(timeout=20) for one in asked]
        assert answers == [str(number) for number in range(concurrency)]
        assert await (await note.enqueue("next")).result(timeout=20) == "next"


async def test_it_has_none_as_long_as_it_waits_for_one_of_several(url: str, said: list[str]) -> None:
    async with working(url, concurrency=1):
        assert await (await ask_several.enqueue(5)).result(timeout=10) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("function", [ask_another, ask_who_asks, ask_from_a_thread], ids=lambda one: one.name)
async def test_however_many_wait_there_is_a_slot_for_what_they_wait_for(
    url: str, said: list[str], function: Any
) -> None:
    async with working(url, concurrency=2, threads=2):
        asked = [await function.enqueue(str(number)) for number in range(9)]
        assert [await one.result(timeout=10) for one in asked] == [str(number) for number in range(9)]


async def test_others_have_its_thread(url: str) -> None:
    async with working(url, concurrency=1, threads=1):
        for text in ("one", "two"):
            assert await (await ask_from_a_thread.enqueue(text)).result(timeout=20) == text


async def test_one_that_waits_in_vain_is_told_of_by_both_names(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handle, "LONG", timedelta(milliseconds=50))
    async with working(url, grace=0):
        asked = await count_down.enqueue(1)
        await until(lambda: f"count_down ({asked.id}) waits for the result of count_down (" in caplog.text)
        await asked.cancel()


@task
async def ask_itself(ctx: TaskContext) -> None:
    await TaskHandle(ctx.id, the_client("this"), json.loads).result()


@task
async def ask_the_asker(asker: str) -> None:
    await TaskHandle(asker, the_client("this"), json.loads).result()


@task
async def ask_by_two_others(ctx: TaskContext) -> str:
    try:
        await (await ask_whom_is_asked.enqueue(ctx.id)).result()
    except TaskFailed as error:
        return str(error)
    return "no error"


@task
async def ask_whom_is_asked(asker: str) -> None:
    await (await ask_the_asker.enqueue(asker)).result()


async def test_one_that_would_wait_for_itself_fails_at_once(url: str) -> None:
    async with working(url):
        asked = await ask_itself.enqueue()
        with pytest.raises(
            TaskFailed, match=rf"WaitsForItself: ask_itself \({asked.id}\) would wait for ever .*of ask_"
        ):
            await asked.result(timeout=30)


async def test_those_that_would_wait_for_each_other_are_named(url: str) -> None:
    async with working(url):
        asked = await ask_by_two_others.enqueue()
        answer = await asked.result(timeout=30)
    assert "WaitsForItself: ask_the_asker (" in answer
    assert f"the result of ask_by_two_others ({asked.id})" in answer


async def test_waiting_for_one_task_twice_is_no_circle(url: str, said: list[str]) -> None:
    async with working(url):
        assert await (await ask_twice.enqueue()).result(timeout=30) == ["text", "text", "text"]


@task
async def ask_twice() -> list[str]:
    handle = await note.enqueue("text")
    return [*await asyncio.gather(handle.result(), handle.result()), await handle.result()]


async def test_a_cancelled_one_takes_its_slot_with_it(url: str, said: list[str]) -> None:
    async with working(url, concurrency=1):
        waiting = await ask_for_ever.enqueue()
        await until(lambda: said)
        await waiting.cancel()
        for text in ("one", "two"):
            assert await (await note.enqueue(text)).result(timeout=20) == text


@task
async def ask_for_ever() -> None:
    delayed = await note.options(delay=3600).enqueue("late")
    await (await note.enqueue("asked")).result()
    await asyncio.gather(delayed.result(), delayed.result())
