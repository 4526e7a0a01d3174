"""A canary: a secret that was given to a task is in no answer of the dashboard, in no stream and in no log."""

import asyncio
import logging
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, SecretStr

from afterwards import Secret, TaskContext, task
from dashboard.fixtures import ACT, READ, House
from face.serving import finished

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

CANARY = "kanarienvogel-7f3a9c"

log = logging.getLogger("the_application")


class Account(BaseModel):
    name: str
    password: str


@task(queue="secrets")
async def sing(
    key: SecretStr, mark: Annotated[str, Secret()], account: Account, api_key: str, ctx: TaskContext
) -> Annotated[str, Secret()]:
    log.warning("logging in with %s", mark)
    ctx.progress(1, 2, f"as {mark}")
    return f"the key is {mark}"


@task(queue="secrets")
async def croak(token: str) -> None:
    raise ValueError(f"401 for {token}")


async def everything(house: House) -> list[Any]:
    """The ids of tasks with the secret everywhere, one succeeded, one failed and one that waits."""
    account = Account(name="anna", password=CANARY)
    calls = [
        sing.call(SecretStr(CANARY), CANARY, account, api_key=CANARY),
        croak.call(CANARY),
        croak.options(delay=600).call(CANARY),
    ]
    handles = await house.tasks.enqueue_many(calls)
    for handle in handles[:2]:
        await finished(handle)
    return [handle.id for handle in handles]


async def test_no_answer_has_a_secret(house: House, caplog: pytest.LogCaptureFixture) -> None:
    ids = await everything(house)
    paths = ["", "/tasks", "/queues", "/schedules", "/workers", "/api/openapi.json"]
    paths += [f"/api/{name}" for name in ("tasks", "stats", "queues", "workers", "schedules", "throughput")]
    paths += [path for id in ids for path in (f"/tasks/{id}", f"/api/tasks/{id}")]
    shown = 0
    for path in paths:
        answer = await house.http.get(f"/afterwards{path}", headers=READ, follow_redirects=True)
        assert answer.status_code == 200, path
        assert CANARY not in answer.text, path
        shown += "[hidden]" in answer.text
    assert shown >= 4
    assert all(CANARY not in line.getMessage() for line in caplog.records if line.name.startswith("afterwards"))


async def test_no_stream_has_a_secret(house: House) -> None:
    ids = await everything(house)
    for query in ("", *(f"?task={id}" for id in ids)):
        async with house.http.stream("GET", f"/afterwards/api/stream{query}", headers=READ) as answer:
            async with asyncio.timeout(30):
                async for line in answer.aiter_lines():
                    assert CANARY not in line
                    if line.startswith("data:"):
                        break


async def test_no_search_tells_a_secret_letter_by_letter(house: House) -> None:
    await everything(house)
    for text in (CANARY, CANARY[:4], "kanarienvogel"):
        found = await house.http.get("/afterwards/api/count", params={"text": text}, headers=READ)
        assert found.json() == {"count": 0}


async def test_no_action_tells_a_secret(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "afterwards")
    await everything(house)
    for action in ("cancel", "delete"):
        body = {"filter": {"queue": "secrets"}}
        answer = await house.http.post(f"/afterwards/api/tasks/{action}", json=body, headers=ACT)
        assert answer.json()["changed"] >= 1
        assert CANARY not in answer.text
    assert all(CANARY not in line.getMessage() for line in caplog.records if line.name.startswith("afterwards"))
