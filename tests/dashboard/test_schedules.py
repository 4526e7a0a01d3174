"""Schedules in the API: those of this process, and those that only others know."""

from typing import Any

import httpx
import pytest

from afterwards import task
from dashboard.fixtures import ACT, READ, House

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@task(cron="0 3 * * *", tz="Europe/Rome")
async def clean_up() -> None: ...


async def schedules(http: httpx.AsyncClient) -> dict[str, Any]:
    answer = await http.get("/afterwards/api/schedules", headers=READ)
    assert answer.status_code == 200, answer.text
    return {one["name"]: one for one in answer.json()["schedules"]}


async def change(http: httpx.AsyncClient, name: str, how: str) -> httpx.Response:
    return await http.post(f"/afterwards/api/schedules/{name}/{how}", headers=ACT)


async def test_a_schedule_of_this_process_is_paused_and_resumed(house: House) -> None:
    before = (await schedules(house.http))["clean_up"]
    assert (before["expression"], before["tz"], before["paused"]) == ("0 3 * * *", "Europe/Rome", False)
    assert before["next_fire"].endswith("Z")
    assert (await change(house.http, "clean_up", "pause")).json()["schedules"] == ["clean_up"]
    paused = (await schedules(house.http))["clean_up"]
    assert (paused["paused"], paused["next_fire"]) == (True, None)
    assert (await change(house.http, "clean_up", "resume")).json()["schedules"] == []


async def test_a_schedule_that_only_another_process_knows_is_paused_and_resumed(house: House) -> None:
    await (await house.engine()).register_schedules({"of_another": "0 4 * * * UTC", "often": "every 0:05:00"})
    found = await schedules(house.http)
    assert [(found[name]["expression"], found[name]["tz"]) for name in ("of_another", "often")] == [
        ("0 4 * * *", "UTC"),
        ("every 0:05:00", None),
    ]
    assert found["of_another"]["next_fire"] is None
    assert (await change(house.http, "of_another", "pause")).json()["schedules"] == ["of_another"]
    assert (await schedules(house.http))["of_another"]["paused"] is True
    assert (await change(house.http, "of_another", "resume")).json()["schedules"] == []


async def test_what_has_no_schedule_is_not_found(house: House) -> None:
    for name in ("add", "nothing"):  # a task function without one, and none at all
        for how in ("pause", "resume"):
            answer = await change(house.http, name, how)
            assert (answer.status_code, answer.json()) == (
                404,
                {"detail": f"no task function named {name} has a schedule"},
            )


async def test_pauses_of_schedules_are_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "afterwards")
    await (await house.engine()).register_schedules({"of_another": "0 4 * * * UTC"})
    await change(house.http, "clean_up", "pause")
    await change(house.http, "of_another", "pause")
    said = [record.getMessage() for record in caplog.records if record.name == "afterwards.dashboard"]
    assert said == [f"dashboard: anna asked to pause schedule {name}" for name in ("clean_up", "of_another")]
