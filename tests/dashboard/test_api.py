"""The API: what it lists, counts and changes, and what it says to wrong requests."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from afterwards import Access, Afterwards, State
from dashboard.fixtures import ACT, READ, House, add, break_down, give_up
from face.serving import finished, serving, until_async

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

UNKNOWN = "0197e6b2-0000-7000-8000-000000000000"


async def get(http: httpx.AsyncClient, path: str, **query: Any) -> Any:
    answer = await http.get(f"/afterwards/api/{path}", params=query, headers=READ)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def post(http: httpx.AsyncClient, path: str, body: Any = None) -> Any:
    answer = await http.post(f"/afterwards/api/{path}", json=body, headers=ACT)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_tasks_are_listed_by_state_name_queue_text_and_time(house: House) -> None:
    good = await house.ended(await add.enqueue(1, other=2))
    bad = await house.ended(await break_down.options(queue="mail", retries=0).enqueue("the printer"))
    out = await house.ended(await give_up.enqueue())

    async def ids(**query: Any) -> list[str]:
        return [one["id"] for one in (await get(house.http, "tasks", **query))["tasks"]]

    assert await ids() == [out, bad, good]
    assert await ids(state="failed") == [bad]
    assert await ids(state=["failed", "succeeded"]) == [bad, good]
    assert await ids(name="add") == [good]
    assert await ids(queue="mail") == [bad]
    assert await ids(text="PRINTER") == [bad]
    assert await ids(since="1h", state="cancelled") == [out]
    assert await ids(since=(datetime.now(UTC) + timedelta(hours=1)).isoformat()) == []
    assert await get(house.http, "count", state=["failed", "cancelled"]) == {"count": 2}


async def test_a_list_continues_below_its_last_task(house: House) -> None:
    handles = await house.tasks.enqueue_many([add.call(1, other=number) for number in range(5)])
    pages, before = [], None
    while True:
        page = await get(house.http, "tasks", limit=2, **({"before": before} if before else {}))
        pages.append([one["id"] for one in page["tasks"]])
        before = page["next"]
        if before is None:
            break
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [id for page in pages for id in page] == [handle.id for handle in reversed(handles)]


async def test_a_page_of_large_tasks_ends_early_and_continues(house: House) -> None:
    stored = await house.tasks.enqueue_many([break_down.options(delay=3600).call("x" * 250_000) for _ in range(40)])
    listed: list[str] = []
    below: dict[str, str] = {}
    while True:
        answer = await house.http.get("/afterwards/api/tasks", params={"limit": "200", **below}, headers=READ)
        assert len(answer.content) < 5_000_000
        page = answer.json()
        listed += [one["id"] for one in page["tasks"]]
        if page["next"] is None:
            break
        below = {"before": page["next"]}
    assert listed == [handle.id for handle in stored][::-1]
    shown = await house.http.get("/afterwards/tasks", headers=READ)
    assert len(shown.content) < 200_000
    assert f"before={listed[15]}" in shown.text


async def test_a_record_holds_values(house: House) -> None:
    huge = 2**53 + 1
    id = await house.ended(await add.enqueue(huge, other=10**400))
    record = await get(house.http, f"tasks/{id}")
    assert (record["arguments"], record["result"]) == ({"one": huge, "other": 10**400}, huge + 10**400)
    assert (record["name"], record["state"], record["queue"], record["attempt"]) == ("add", "succeeded", "default", 1)
    assert datetime.fromisoformat(record["finished_at"]).tzinfo == UTC


async def test_a_record_of_one_task_has_the_traceback(house: House) -> None:
    id = await house.ended(await break_down.options(retries=0).enqueue("the printer"))
    [failure] = (await get(house.http, f"tasks/{id}"))["failures"]
    assert (failure["type"], failure["message"]) == ("ValueError", "the printer broke down")
    assert "break_down" in failure["traceback"]
    assert (await get(house.http, f"tasks/{id.upper()}"))["id"] == id


@pytest.mark.parametrize("id", [UNKNOWN, "nothing", "%00", "%20", "x" * 3000])
async def test_an_unknown_task_is_not_found(http: httpx.AsyncClient, id: str) -> None:
    answer = await http.get(f"/afterwards/api/tasks/{id}", headers=READ)
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("no task has the id")


async def test_the_operators_night(house: House) -> None:
    """List what failed, requeue it, delete the rest."""
    bad = await break_down.options(retries=0).enqueue("the printer")
    await finished(bad)
    assert await post(house.http, "tasks/requeue", {"filter": {"state": "failed", "since": "1h"}}) == {"changed": 1}
    await finished(bad)
    assert (await bad.status()).attempt == 2
    assert await post(house.http, "tasks/requeue", {"state": "failed"}) == {"changed": 1}  # the filter itself
    await finished(bad)
    assert (await bad.status()).attempt == 3
    assert await post(house.http, "tasks/delete", {"all": True}) == {"changed": 1}
    assert (await get(house.http, "tasks"))["tasks"] == []


async def test_tasks_are_cancelled_and_started_by_their_ids(house: House) -> None:
    later, never = [await add.options(delay=600).enqueue(1, other=2) for _ in range(2)]
    unknown = UNKNOWN
    assert await post(house.http, "tasks/cancel", {"ids": [never.id, unknown]}) == {"changed": 1}
    assert await post(house.http, "tasks/start", {"ids": [later.id, never.id]}) == {"changed": 1}
    assert (await finished(later)).state is State.SUCCEEDED
    assert (await never.status()).state is State.CANCELLED


async def test_numbers(house: House) -> None:
    await house.ended(await add.enqueue(1, other=2))
    await house.ended(await break_down.options(queue="mail", retries=0).enqueue("the printer"))
    stats = await get(house.http, "stats")
    assert {state: count for state, count in stats["states"].items() if count} == {"succeeded": 1, "failed": 1}
    assert stats["states"].keys() == set(State)
    assert stats["oldest"] is None


@pytest.mark.parametrize(("span", "step", "steps"), [("1h", 60, 61), ("24h", 900, 97), ("7d", 7200, 85)])
async def test_throughput_has_every_step(house: House, span: str, step: int, steps: int) -> None:
    await house.ended(await add.enqueue(1, other=2))
    await house.ended(await break_down.options(retries=0).enqueue("the printer"))
    found = await get(house.http, "throughput", span=span)
    assert (found["span"], found["step"], len(found["steps"])) == (span, step, steps)
    times = [datetime.fromisoformat(one["at"]) for one in found["steps"]]
    assert {later - earlier for earlier, later in pairwise(times)} == {timedelta(seconds=step)}
    assert (sum(one["succeeded"] for one in found["steps"]), sum(one["failed"] for one in found["steps"])) == (1, 1)


async def test_queues_and_task_functions_are_paused(house: House) -> None:
    await post(house.http, "queues/default/pause")
    await post(house.http, "names/give_up/pause")
    waiting = await add.enqueue(1, other=2)
    [queue] = (await get(house.http, "queues"))["queues"]
    assert (queue["queue"], queue["paused"], queue["states"]) == ("default", True, {"queued": 1})
    assert await get(house.http, "paused") == {"queues": ["default"], "names": ["give_up"], "schedules": []}
    assert (await post(house.http, "queues/default/resume"))["queues"] == []
    assert (await post(house.http, "names/give_up/resume"))["names"] == []
    assert (await finished(waiting)).state is State.SUCCEEDED


async def test_a_list_that_cannot_go_on_says_so(house: House) -> None:
    answer = await house.http.get(f"/afterwards/api/tasks?before={UNKNOWN}", headers=ACT)
    assert answer.status_code == 404
    assert "no task has the id" in answer.json()["detail"]


async def test_workers_are_listed(house: House) -> None:
    async def announced() -> Any:
        return (await get(house.http, "workers"))["workers"]

    [worker] = await until_async(announced)
    assert worker["alive"] is True
    assert "add" in worker["names"]


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("tasks?state=lost", "state"),
        ("tasks?limit=0", "limit"),
        ("tasks?limit=201", "limit"),
        ("tasks?limit=many", "limit"),
        ("tasks?before=nothing", "before"),
        ("tasks?since=yesterday", "since"),
        ("tasks?since=2026-01-31T12:30:00", "since"),
        ("tasks?queue=a%20b", "queue"),
        ("tasks?name=", "name"),
        ("tasks?text=", "text"),
        ("tasks?text=%00", "text"),
        ("tasks?sate=failed", "sate"),
        ("tasks?text=a&text=b", "text"),
        ("tasks?since=1700000000", "since"),
        ("count?limit=10", "limit"),
        ("throughput?span=1y", "span"),
    ],
)
async def test_a_wrong_filter_is_refused_with_its_name(http: httpx.AsyncClient, path: str, parameter: str) -> None:
    answer = await http.get(f"/afterwards/api/{path}", headers=READ)
    assert answer.status_code == 422
    assert parameter in answer.json()["detail"][0]["loc"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, '"loc":["body"'),
        ({}, "Field required"),
        ({"ids": []}, "at least 1 item"),
        ({"ids": [UNKNOWN] * 1001}, "at most 1000 items"),
        ({"ids": ["nothing"]}, "valid UUID"),
        ({"ids": "all"}, "valid list"),
        ({"filter": {}}, "an empty filter would mean all tasks"),
        ({"filter": {"all": False}}, "Input should be True"),
        ({"filter": {"all": True, "state": "failed"}}, "not permitted"),
        ({"filter": {"state": []}}, "at least 1 item"),
        ({"filter": {"state": "lost"}}, "Input should be"),
        ({"filter": {"sate": "failed"}}, "not permitted"),
        ({"filter": {"text": "\ud800"}}, "unicode"),
        ({"filter": None}, "valid dictionary"),
        ({"state": []}, "at least 1 item"),
        ({"sate": "failed"}, "not permitted"),
        ({"all": False}, "Input should be True"),
        ({"ids": [UNKNOWN], "filter": {"all": True}}, "not permitted"),
        ([], "valid dictionary"),
        (7, "valid dictionary"),
    ],
)
async def test_a_wrong_selection_is_refused_and_changes_nothing(house: House, body: Any, said: str) -> None:
    handle = await add.enqueue(1, other=2)
    await finished(handle)
    headers = {**ACT, "content-type": "application/json"}
    for action in ("requeue", "cancel", "delete", "start"):
        answer = await house.http.post(f"/afterwards/api/tasks/{action}", content=json.dumps(body), headers=headers)
        assert answer.status_code == 422, answer.text
        assert said in answer.text
    assert (await handle.status()).attempt == 1


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"ids": NaN}', b""])
async def test_a_body_that_is_no_json_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    headers = {**ACT, "content-type": "application/json"}
    answer = await http.post("/afterwards/api/tasks/delete", content=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"]


async def test_a_filter_in_a_body_may_have_several_values(house: House) -> None:
    await house.ended(await add.enqueue(1, other=2))
    await house.ended(await give_up.enqueue())
    body = {"filter": {"state": ["succeeded", "cancelled"], "name": "give_up", "text": "give"}}
    assert await post(house.http, "tasks/delete", body) == {"changed": 1}


async def test_a_store_that_is_away_is_answered_with_503(tmp_path: Path) -> None:
    away = Afterwards(url=f"sqlite:///{tmp_path / 'no folder' / 'tasks.db'}")
    app = FastAPI()
    app.include_router(away.dashboard_router(auth=lambda: Access.ACT), prefix="/ops")
    async with serving(app) as http:
        for answer in (
            await http.get("/ops/api/tasks"),
            await http.get("/ops/api/stats"),
            await http.post("/ops/api/tasks/requeue", json={"filter": {"all": True}}),
        ):
            assert answer.status_code == 503
            assert (answer.json(), answer.headers["retry-after"]) == ({"detail": "The task store is unavailable"}, "1")
