"""Whom the application refuses gets its answer everywhere; whoever may only look changes nothing."""

from itertools import product

import httpx
import pytest

from afterwards import State
from afterwards.engine import Paused, Query
from dashboard.fixtures import ACT, READ, House, add
from face.serving import finished

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

EVERYWHERE = [
    "",
    "/",
    "/api",
    "/api/tasks",
    "/api/openapi.json",
    "/api/stream",
    "/api/nothing",
    "/static/style.css",
    "/tasks/0197e6b2-0000-7000-8000-000000000000",
    "/nothing",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/line%0Abreak",
]


async def test_whom_the_dependency_refuses_gets_its_answer_everywhere(http: httpx.AsyncClient) -> None:
    for path, method in product(EVERYWHERE, ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")):
        answer = await http.request(method, f"/afterwards{path}")
        assert (answer.status_code, answer.headers.get("www-authenticate")) == (401, "Bearer"), (method, path)


async def test_the_level_none_sees_nothing(http: httpx.AsyncClient) -> None:
    for path in EVERYWHERE:
        answer = await http.get(f"/afterwards{path}", headers={"authorization": "nobody"})
        assert answer.status_code == 403, path


async def test_another_path_that_begins_alike_is_not_the_dashboards(http: httpx.AsyncClient) -> None:
    assert (await http.get("/afterwardsandmore")).status_code == 404


async def _writes(http: httpx.AsyncClient) -> list[tuple[str, str]]:
    """All operations of the API that are no reads, as its own description lists them."""
    described = (await http.get("/afterwards/api/openapi.json", headers=READ)).json()
    return [
        (method, f"/afterwards{path}")
        for path, operations in described["paths"].items()
        for method in operations
        if method != "get"
    ]


async def test_read_gets_403_on_every_write(house: House) -> None:
    handle = await add.enqueue(1, other=2)
    await finished(handle)
    before = await (await house.engine()).find(Query())
    writes = await _writes(house.http)
    assert len(writes) >= 10
    for method, path in writes:
        for name in ("default", "add", handle.id):
            filled = path.replace("{queue}", name).replace("{name}", name)
            for body in ({"ids": [handle.id]}, {"filter": {"all": True}}, {}):
                answer = await house.http.request(method, filled, json=body, headers=READ)
                assert answer.status_code == 403, (method, filled)
                assert answer.json() == {"detail": "you may look, and not change anything"}
    assert await (await house.engine()).find(Query()) == before
    assert await (await house.engine()).paused() == Paused()


async def test_act_may_do_every_write(house: House) -> None:
    """The paths that the test before has tried are right."""
    for method, path in await _writes(house.http):
        if "{name}" in path and "schedules" in path:
            continue  # there is none
        filled = path.replace("{queue}", "default").replace("{name}", "add")
        body = {"filter": {"all": True}} if "{" not in path else None
        answer = await house.http.request(method, filled, json=body, headers=ACT)
        assert answer.status_code == 200, (method, filled, answer.text)


async def test_read_sees_and_act_changes(house: House) -> None:
    handle = await add.enqueue(1, other=2)
    await finished(handle)
    seen = (await house.http.get("/afterwards/api/tasks", headers=READ)).json()
    assert [one["id"] for one in seen["tasks"]] == [handle.id]
    done = await house.http.post("/afterwards/api/tasks/delete", json={"ids": [handle.id]}, headers=ACT)
    assert done.json() == {"changed": 1}
    assert (await house.http.get("/afterwards/api/tasks", headers=READ)).json() == {"tasks": [], "next": None}


async def test_actions_are_logged_with_who_did_them(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "afterwards")
    await finished(await add.enqueue(1, other=2))
    await house.http.post("/afterwards/api/tasks/requeue", json={"filter": {"state": "succeeded"}}, headers=ACT)
    await house.http.post("/afterwards/api/queues/mail/pause", headers=ACT)
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("dashboard:")]
    assert said == [
        "dashboard: anna asked to requeue tasks with state=succeeded: 1 task",
        "dashboard: anna asked to pause queue mail",
    ]


async def test_a_cancelled_task_says_who_cancelled_it(house: House) -> None:
    handle = await add.options(delay=600).enqueue(1, other=2)
    await house.http.post("/afterwards/api/tasks/cancel", json={"ids": [handle.id]}, headers=ACT)
    record = await handle.status()
    assert (record.state, record.reason) == (State.CANCELLED, "cancelled in the dashboard by anna")
