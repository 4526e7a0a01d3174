"""Pages change by themselves, until somebody pauses them."""

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from e2e.conftest import House, Houses, Seen


@pytest.fixture
def working(houses: Houses) -> House:
    """A server with a worker, and no task yet."""
    return houses(seed="empty", worker=True)


def _sign_up(working: House, email: str) -> None:
    httpx.post(f"{working.origin}/signup/{email}").raise_for_status()


def test_a_new_task_appears_in_the_list(page: Page, working: House) -> None:
    page.goto(f"{working.base}/tasks")
    expect(page.get_by_text("No task yet")).to_be_visible()
    _sign_up(working, "ada")
    expect(page.get_by_role("link", name="send_welcome")).to_be_visible()
    expect(page.locator("[data-row]")).to_contain_text("running")


def test_the_progress_of_a_task_moves_until_it_has_succeeded(page: Page, working: House) -> None:
    _sign_up(working, "ada")
    page.goto(f"{working.base}/tasks/{working.one()['id']}")
    for done in ("1 of 3", "2 of 3"):
        working.post("/step")
        expect(page.locator(".progress").first).to_contain_text(done)
    working.post("/step")
    expect(page.get_by_role("heading", level=1)).to_contain_text("succeeded")
    expect(page.get_by_role("button", name="Requeue")).to_be_visible()


def test_what_somebody_has_selected_and_opened_stays(page: Page, working: House) -> None:
    _sign_up(working, "ada")
    page.goto(f"{working.base}/tasks")
    page.get_by_label(re.compile("Select send_welcome")).check()
    page.get_by_role("link", name="send_welcome").focus()
    _sign_up(working, "grace")
    expect(page.locator("[data-row]")).to_have_count(2)
    expect(page.locator("[data-row]").nth(1).get_by_role("checkbox")).to_be_checked()
    expect(page.locator("[data-row]").nth(0).get_by_role("checkbox")).not_to_be_checked()
    expect(page.locator("[data-row]").nth(1).get_by_role("link")).to_be_focused()
    expect(page.get_by_text("1 selected")).to_be_visible()


def test_a_paused_page_stands_still_and_the_key_r_refreshes_it(page: Page, working: House) -> None:
    page.goto(f"{working.base}/tasks")
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "false")
    with httpx.stream("GET", f"{working.base}/api/stream", headers={"level": "act"}) as stream:
        lines = stream.iter_lines()
        _sign_up(working, "ada")
        _until(lines, "send_welcome")  # others are told now
    page.wait_for_timeout(1500)  # longer than a page takes to follow an event
    expect(page.locator("[data-row]")).to_have_count(0)
    page.keyboard.press("r")
    expect(page.locator("[data-row]")).to_have_count(1)
    page.reload()
    expect(page.get_by_role("button", name="Paused")).to_be_visible()


def test_a_hidden_page_asks_for_nothing(page: Page, working: House) -> None:
    asked: list[str] = []
    page.goto(f"{working.base}/tasks")
    page.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", { value: true, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    page.on("request", lambda request: asked.append(request.url))
    _sign_up(working, "ada")
    page.wait_for_timeout(1500)
    assert asked == []
    page.evaluate("() => { delete document.hidden; document.dispatchEvent(new Event('visibilitychange')); }")
    expect(page.locator("[data-row]")).to_have_count(1)


def test_without_a_stream_the_page_polls(page: Page, working: House, seen: Seen) -> None:
    seen.allow("/api/stream")

    def refuse(route: Route) -> None:
        route.fulfill(status=503)

    page.route("**/api/stream*", refuse)
    page.goto(f"{working.base}/tasks")
    _sign_up(working, "ada")
    expect(page.locator("[data-row]")).to_have_count(1, timeout=10_000)


def _until(lines: Iterator[str], text: str) -> None:
    for line in lines:
        if text in line:
            return
