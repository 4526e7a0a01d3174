"""Texts that would be script somewhere else are texts here, wherever they are stored."""

from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page

from e2e.conftest import House, Houses
from e2e.payloads import PAYLOADS

SHOWING_ALL_TEXTS = [("charge_card", "failed"), ("import_rows", "succeeded"), ("resize_image", "running")]
"""Between them: arguments, error, traceback, logs, result, keys, progress, and the reason to stop."""


@pytest.fixture(scope="module")
def poisoned(houses: Houses) -> House:
    """A server with a task in every state for each payload, which is in all of its texts."""
    return houses(seed="payloads")


def _quiet(page: Page) -> None:
    """Pause the page, so that hundreds of them need not follow what happens."""
    page.add_init_script("localStorage.setItem('afterwards-live', 'paused')")


NO_PAGE_HAS = (
    "iframe, object, embed, base, style, meta[http-equiv], [onload], [onerror], [onfocus], [style], [formaction]"
)
"""What no template writes. Nor does any write an address with another scheme."""


def _is_clean(page: Page) -> None:
    """Look for elements and attributes that no template writes, and for any script but ours."""
    assert page.locator("script").count() == 1
    assert page.locator(NO_PAGE_HAS).count() == 0
    assert page.locator("[href^='javascript:'], [action^='javascript:'], [src^='javascript:']").count() == 0


@pytest.mark.parametrize("part", range(6))
def test_on_the_pages_of_tasks(part: int, page: Page, poisoned: House) -> None:
    _quiet(page)
    found = _all(poisoned)
    for payload in PAYLOADS[part::6]:
        mine = {(task["name"], task["state"]): task["id"] for task in found if task["origin"] == payload}
        for kind in SHOWING_ALL_TEXTS:
            page.goto(f"{poisoned.base}/tasks/{mine[kind]}")
            _is_clean(page)
            request = page.locator(".facts div", has=page.get_by_text("Request", exact=True)).locator("dd")
            assert request.inner_text().split() == payload.split()


def test_on_the_pages_of_many(page: Page, poisoned: House) -> None:
    _quiet(page)
    for path in ("", "/queues", "/workers", "/schedules", "/tasks/confirm?act=cancel&all=1"):
        page.goto(poisoned.base + path)
        _is_clean(page)
    page.goto(f"{poisoned.base}/tasks")
    while True:
        _is_clean(page)
        older = page.get_by_role("link", name="Older")
        if not older.count():
            break
        with page.expect_navigation():
            older.click()


def test_in_a_live_page(page: Page, poisoned: House) -> None:
    page.goto(f"{poisoned.base}/tasks?state=failed")
    with page.expect_response(lambda answer: answer.request.resource_type == "fetch"):
        page.keyboard.press("r")
    _is_clean(page)


def test_in_the_address(page: Page, poisoned: House) -> None:
    _quiet(page)
    for payload in PAYLOADS:
        page.goto(f"{poisoned.base}/tasks?{urlencode(dict.fromkeys(('text', 'name', 'queue'), payload))}")
        assert page.get_by_label("Queue").input_value().split() == payload.replace("\n", "").split()
        _is_clean(page)


def _all(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    before: dict[str, str] = {}
    while True:
        page = house.tasks(**before)
        found += page
        if len(page) < 200:
            return found
        before = {"before": str(page[-1]["id"])}
