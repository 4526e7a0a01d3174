"""The forms of the pages, as a browser sends them and as somebody else may."""

import json
from datetime import timedelta
from uuid import uuid4

import pytest

from afterwards.core.task import NewTask
from dashboard.fixtures import ACT, READ, House

pytestmark = pytest.mark.anyio

_LONG = timedelta(days=1)

FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("back", "to"),
    [
        ("/afterwards/tasks?state=failed", "/afterwards/tasks?state=failed"),
        ("/afterwards", "/afterwards"),
        ("//example.org/afterwards", "/afterwards"),
        ("https://example.org/", "/afterwards"),
        ("/afterwards/\\example.org", "/afterwards"),
        ("/afterwards.example.org", "/afterwards"),
        ("/elsewhere", "/afterwards"),
        ("/afterwards/\r\nset-cookie: a=b", "/afterwards"),
        ("", "/afterwards"),
    ],
)
async def test_a_form_leads_back_to_the_dashboard_only(house: House, back: str, to: str) -> None:
    answer = await house.http.post("/afterwards/theme", headers=READ, data={"theme": "dark", "back": back})
    assert (answer.status_code, answer.headers["location"]) == (303, to)
    assert answer.cookies["afterwards_theme"] == "dark"


async def test_an_unknown_theme_is_not_kept(house: House) -> None:
    answer = await house.http.post("/afterwards/theme", headers=READ, data={"theme": "<pink>"})
    assert answer.status_code == 303
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"content-type": "application/json"}, b"{}", 415),
        (FORM, b"act=requeue&id=" + b"0" * 300_000, 413),
        (FORM, b"&".join([b"id=1"] * 3000), 422),
        (FORM, b"act=requeue&id=\xff", 422),
        (FORM, b"act=burn&all=1", 422),
        (FORM, b"act=requeue", 422),
        (FORM, b"act=requeue&id=1", 422),
        (FORM, b"act=requeue&all=1&state=lost", 422),
    ],
)
async def test_other_forms_are_refused(house: House, headers: dict[str, str], content: bytes, status: int) -> None:
    answer = await house.http.post("/afterwards/tasks/act", headers=ACT | headers, content=content)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


async def test_a_form_of_another_site_is_refused_with_a_page(house: House) -> None:
    headers = ACT | FORM | {"sec-fetch-site": "cross-site"}
    answer = await house.http.post("/afterwards/tasks/act", headers=headers, content=b"act=delete&all=1")
    assert answer.status_code == 403
    assert "another site" in answer.text


async def test_text_that_is_not_unicode_is_shown(house: House) -> None:
    id = str(uuid4())
    await (await house.engine()).enqueue(
        [NewTask(id=id, name="add", arguments=json.dumps({"a": "\ud800"}), wait=_LONG)]
    )
    answer = await house.http.get(f"/afterwards/tasks/{id}", headers=ACT)
    assert answer.status_code == 200
