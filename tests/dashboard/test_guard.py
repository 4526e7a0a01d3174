"""Requests that other sites make are refused; the headers of every answer."""

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse

from afterwards import Afterwards
from afterwards.dashboard.guard import HEADERS
from afterwards.dashboard.origins import from_another_site
from dashboard.fixtures import ACT, House
from face.serving import serving

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

HERE = "ops.example"

FORM = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
FETCH = {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
FRAME = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
IMAGE = {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}


@pytest.mark.parametrize(
    ("headers", "reads", "changes"),
    [
        # no browser
        ({}, True, True),
        # a browser that says where the request comes from
        ({"sec-fetch-site": "same-origin", **FETCH}, True, True),
        (FORM, True, True),
        ({**FORM, "origin": "null"}, True, True),
        ({"sec-fetch-site": "none", **LINK}, True, False),
        ({"sec-fetch-site": "cross-site", **LINK}, True, False),
        ({"sec-fetch-site": "same-site", **LINK}, True, False),
        ({"sec-fetch-site": "cross-site", **FRAME}, False, False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "document"}, False, False),
        ({"sec-fetch-site": "cross-site", **IMAGE}, False, False),
        ({"sec-fetch-site": "cross-site", **FETCH}, False, False),
        ({"sec-fetch-site": "same-site", **FETCH}, False, False),
        ({"sec-fetch-site": "cross-site", "origin": f"http://{HERE}", **FETCH}, False, False),
        ({"sec-fetch-site": "", **FETCH}, False, False),
        # a browser over HTTP, which says only its origin
        ({"origin": f"http://{HERE}"}, True, True),
        ({"origin": f"http://{HERE}:80"}, True, True),
        ({"origin": f"http://{HERE.upper()}"}, True, True),
        ({"origin": f"http://{HERE}:8080"}, False, False),
        ({"origin": f"https://{HERE}"}, False, False),
        ({"origin": f"http://{HERE}.evil.example"}, False, False),
        ({"origin": "http://evil.example"}, False, False),
        ({"origin": f"http://evil.example@{HERE}.evil.example"}, False, False),
        ({"origin": "null"}, False, False),
        ({"origin": ""}, False, False),
        ({"origin": "http://[::1"}, False, False),
        ({"origin": "http://ops.example:99999"}, False, False),
    ],
)
def test_a_request_of_another_site_is_told_by_its_headers(headers: dict[str, str], reads: bool, changes: bool) -> None:
    sent = {"host": HERE, **headers}
    for method in ("GET", "HEAD", "OPTIONS"):
        assert from_another_site(method, "http", sent) is not reads, method
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert from_another_site(method, "http", sent) is not changes, method


def test_an_origin_needs_a_host() -> None:
    assert from_another_site("POST", "http", {"origin": "null"})
    assert from_another_site("POST", "http", {"origin": "http://"})


async def test_another_site_changes_nothing(house: House) -> None:
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}):
        answer = await house.http.post("/afterwards/api/queues/default/pause", headers={**ACT, **headers})
        assert answer.status_code == 403
        assert answer.json() == {"detail": "refused: the request was made by another site"}
    assert not (await (await house.engine()).paused()).queues


async def test_the_dashboards_own_pages_and_scripts_change_something(house: House) -> None:
    here = str(house.http.base_url).rstrip("/")
    for headers in ({}, {"sec-fetch-site": "same-origin"}, {"origin": here}):
        answer = await house.http.post("/afterwards/api/queues/default/pause", headers={**ACT, **headers})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/api/tasks", ACT, 200),
        ("GET", "/api/tasks", {}, 401),
        ("GET", "/api/tasks", {"authorization": "nobody"}, 403),
        ("GET", "/api/nothing", ACT, 404),
        ("PUT", "/api/tasks", ACT, 405),
        ("GET", "/api/tasks?limit=0", ACT, 422),
        ("POST", "/api/tasks/cancel", {**ACT, "sec-fetch-site": "cross-site"}, 403),
    ],
)
async def test_every_answer_has_the_headers(
    http: httpx.AsyncClient, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = await http.request(method, f"/afterwards{path}", headers=headers)
    assert answer.status_code == status
    assert answer.headers.items() >= {name.lower(): value for name, value in HEADERS.items()}.items()
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["content-type"] == "application/json"


async def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_an_error_of_the_dependency_has_no_details(store: str) -> None:
    def broken() -> None:
        raise RuntimeError("the password is swordfish")

    app = FastAPI()
    Afterwards(app, store, dashboard="/afterwards", auth=Depends(broken))
    async with serving(app) as http:
        answer = await http.get("/afterwards/api/tasks")
    assert answer.status_code == 500
    assert "swordfish" not in answer.text


class NotLoggedIn(Exception):
    pass


async def test_the_applications_own_answer_to_a_refusal_is_given(store: str) -> None:
    """It may send visitors to its login page, or show one with a policy of its own."""

    def refuses() -> None:
        raise NotLoggedIn

    async def login(request: Request, error: Exception) -> HTMLResponse:
        return HTMLResponse("<h1>Log in</h1>", 401, {"content-security-policy": "default-src 'self'"})

    app = FastAPI(exception_handlers={NotLoggedIn: login})
    Afterwards(app, store, dashboard="/afterwards", auth=Depends(refuses))
    async with serving(app) as http:
        answer = await http.get("/afterwards/api/tasks")
    assert (answer.status_code, answer.text) == (401, "<h1>Log in</h1>")
    assert answer.headers["content-security-policy"] == "default-src 'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
