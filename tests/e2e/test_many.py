"""The pages of a store with a hundred thousand tasks."""

import re

import pytest
from playwright.sync_api import Page, expect

from e2e.conftest import House, Houses


@pytest.fixture(scope="module")
def large(houses: Houses) -> House:
    return houses(seed="many")


def test_the_list_goes_on_page_by_page(large: House, page: Page) -> None:
    page.goto(f"{large.base}/tasks?queue=queue-3")
    expect(page.locator("[data-row]")).to_have_count(50)
    first = page.locator("[data-row] th a").first.get_attribute("href")
    page.get_by_role("link", name="Older").click()
    expect(page).to_have_url(re.compile("before="))
    expect(page.locator("[data-row]")).to_have_count(50)
    assert page.locator("[data-row] th a").first.get_attribute("href") != first
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("[data-row] th a").first).to_have_attribute("href", first or "")


def test_numbers_behind_a_filter_end_at_a_thousand(large: House, page: Page) -> None:
    page.goto(f"{large.base}/tasks?name=send_welcome")
    expect(page.get_by_role("link", name="Queued 1,000+")).to_be_visible()
    expect(page.get_by_label(re.compile(r"All [\d,]+\+ that match"))).to_be_visible()


def test_all_of_them_are_counted_before_they_are_cancelled(large: House, page: Page) -> None:
    page.goto(f"{large.base}/tasks?state=queued&queue=queue-3")
    page.get_by_label(re.compile("All 4,762 that match")).check()
    page.get_by_role("button", name="Cancel…").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cancel 4,762 tasks?")
    page.get_by_role("button", name="Cancel 4,762 tasks").click(timeout=60_000)
    expect(page.get_by_role("status")).to_contain_text("4,762 tasks were cancelled", timeout=60_000)


def test_the_overview_counts_them_all(large: House, page: Page) -> None:
    page.goto(large.base)
    expect(page.locator(".numbers")).to_contain_text(re.compile(r"(95|100),\d\d\d"))
