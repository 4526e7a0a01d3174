"""The dashboard at any prefix, behind a proxy, and when its store is away."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from e2e.conftest import TESTS, House, Houses, Seen


@pytest.fixture
def behind_a_proxy(houses: Houses) -> Iterator[House]:
    """A server that knows that a proxy serves it below /outer, and that proxy."""
    inner = houses(prefix="/ops/tasks", root_path="/outer")
    process = subprocess.Popen(
        [sys.executable, "-m", "e2e.proxy", inner.origin, "/outer"], cwd=TESTS, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    origin = f"http://127.0.0.1:{process.stdout.readline().strip()}"
    yield House(process, origin, f"{origin}/outer/ops/tasks")
    process.kill()
    process.communicate()


def _walk(page: Page, base: str) -> None:
    """Follow the links of the pages, and act."""
    page.goto(base)
    for name in ("Queues", "Schedules", "Workers", "Tasks", "Overview"):
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        assert page.url.startswith(base)
    page.get_by_role("link", name="charge_card").click()
    page.get_by_role("button", name="Requeue").click()
    expect(page.get_by_role("status")).to_contain_text("1 task was queued again.")
    assert page.url.startswith(base)
    with page.expect_response(re.compile("/theme$")):
        page.get_by_label("Theme").select_option("dark")
    with page.expect_response(re.compile("/api/stream$")) as stream:
        page.goto(f"{base}/tasks")
    assert stream.value.status == 200
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_label("All 11 that match").check()
    page.get_by_role("button", name="Delete…").click()
    expect(page).to_have_url(re.compile(re.escape(base)))
    expect(page.get_by_role("heading", level=1)).to_contain_text("Delete 3 tasks?")
    page.get_by_role("button", name="Delete 3 tasks").click()
    expect(page.get_by_role("status")).to_contain_text("3 tasks were deleted.")


def test_at_a_deep_prefix(page: Page, houses: Houses) -> None:
    _walk(page, houses(prefix="/v1/ops/afterwards").base)


def test_behind_a_proxy_that_strips_a_path(behind_a_proxy: House, page: Page) -> None:
    _walk(page, behind_a_proxy.base)


def test_no_file_is_cached_under_an_old_name_and_no_page_at_all(page: Page, house: House) -> None:
    kept: dict[str, str] = {}
    page.on("response", lambda answer: kept.update({answer.url: answer.headers["cache-control"]}))
    page.goto(f"{house.base}/queues")
    assert kept.pop(f"{house.base}/queues") == "no-store"
    files = {url: value for url, value in kept.items() if "/static/" in url}
    assert set(files.values()) == {"private, max-age=31536000, immutable"}
    assert all(re.search(r"/static/(dashboard|icon)\.[0-9a-f]{10}\.(css|js|svg)$", url) for url in files)


def test_a_store_that_is_away_is_a_page(page: Page, own: House, seen: Seen) -> None:
    seen.allow("503")
    own.post("/away")
    answer = page.goto(f"{own.base}/tasks")
    assert answer is not None
    assert answer.status == 503
    expect(page.get_by_role("heading", level=1)).to_have_text("The task store is away")
