"""Each action of each page, as a visitor does it."""

import re

import pytest
from playwright.sync_api import Page, expect

from e2e.conftest import House, Opened


def _notice(page: Page, text: str) -> None:
    expect(page.get_by_role("status")).to_contain_text(text)


def test_one_failed_task_is_requeued(page: Page, own: House) -> None:
    failed = own.one(state="failed", name="charge_card")
    page.goto(f"{own.base}/tasks/{failed['id']}")
    page.get_by_role("button", name="Requeue").click()
    _notice(page, "1 task was queued again.")
    expect(page.get_by_role("heading", level=1)).to_contain_text("queued")
    assert own.one(state="queued", name="charge_card", text=failed["id"])["attempt"] == 3


def test_a_scheduled_task_runs_now(page: Page, own: House) -> None:
    scheduled = own.one(state="scheduled", name="send_welcome")
    page.goto(f"{own.base}/tasks/{scheduled['id']}")
    page.get_by_role("button", name="Run now").click()
    _notice(page, "1 task was queued now.")
    assert own.tasks(state="scheduled", name="send_welcome") == []


def test_a_running_task_is_asked_to_stop_after_a_question(page: Page, own: House) -> None:
    running = own.one(state="running", name="import_rows")
    page.goto(f"{own.base}/tasks/{running['id']}")
    page.get_by_role("button", name="Cancel…").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cancel 1 task?")
    page.get_by_role("button", name="Cancel 1 task").click()
    _notice(page, "1 task was cancelled, or asked to stop.")
    expect(page.locator(".warning")).to_contain_text("cancelled in the dashboard by anna")


def test_a_finished_task_is_deleted_after_a_question(page: Page, own: House) -> None:
    gone = own.one(state="succeeded")
    page.goto(f"{own.base}/tasks/{gone['id']}")
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("link", name="Back").click()
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Delete 1 task").click()
    _notice(page, "1 task was deleted.")
    assert own.tasks(state="succeeded") == []


def test_selected_tasks_are_changed_and_no_others(page: Page, own: House) -> None:
    page.goto(f"{own.base}/tasks?state=failed")
    expect(page.get_by_role("button", name="Requeue…")).to_be_disabled()
    page.get_by_label(re.compile("Select charge_card")).check()
    expect(page.get_by_text("1 selected")).to_be_visible()
    page.get_by_role("button", name="Requeue…").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Requeue 1 task?")
    page.get_by_role("button", name="Requeue 1 task").click()
    _notice(page, "1 task was queued again.")
    expect(page).to_have_url(re.compile(r"\?state=failed&"))
    assert [task["name"] for task in own.tasks(state="failed")] == ["write_log"]


def test_the_whole_page_is_selected_with_one_box(page: Page, own: House) -> None:
    page.goto(f"{own.base}/tasks?queue=default")
    page.get_by_label("This page").check()
    count = len(own.tasks(queue="default"))
    expect(page.get_by_text(f"{count} selected")).to_be_visible()
    page.get_by_role("button", name="Delete…").click()
    finished = len([task for task in own.tasks(queue="default") if task["finished_at"]])
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Delete {finished} tasks?")


def test_all_that_match_are_changed_with_their_number_confirmed(page: Page, own: House) -> None:
    page.goto(f"{own.base}/tasks?name=send_welcome")
    page.get_by_label("All 3 that match").check()
    page.get_by_role("button", name="Cancel…").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cancel 2 tasks?")  # one is cancelled already
    expect(page.get_by_role("main")).to_contain_text("name send_welcome")
    page.get_by_role("button", name="Cancel 2 tasks").click()
    _notice(page, "2 tasks were cancelled, or asked to stop.")
    assert {task["state"] for task in own.tasks(name="send_welcome")} == {"cancelled"}
    assert own.tasks(state="waiting") != []


def test_an_act_that_applies_to_nothing_says_so(page: Page, own: House) -> None:
    page.goto(f"{own.base}/tasks/confirm?act=start&id={own.one(state='succeeded')['id']}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing to run now")


def test_queues_functions_and_schedules_are_paused_and_resumed(page: Page, own: House) -> None:
    page.goto(f"{own.base}/queues")
    payments = page.get_by_role("row", name=re.compile("^payments"))
    payments.get_by_role("button", name="Pause").click()
    expect(payments).to_contain_text("paused")
    payments.get_by_role("button", name="Resume").click()
    expect(payments).to_contain_text("yes")
    functions = page.get_by_label("Paused task functions")
    functions.get_by_role("button", name="Resume").click()
    expect(functions).to_have_count(0)
    page.goto(f"{own.base}/schedules")
    nightly = page.get_by_role("row", name=re.compile("^nightly_report"))
    nightly.get_by_role("button", name="Pause").click()
    expect(nightly).to_contain_text("paused")
    nightly.get_by_role("button", name="Resume").click()
    expect(nightly).not_to_contain_text("paused")


def test_without_script_every_act_works(opened: Opened, own: House) -> None:
    page = opened(java_script_enabled=False)
    page.goto(own.base)
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Queues").click()
    page.get_by_role("row", name=re.compile("^bulk")).get_by_role("button", name="Resume").click()
    expect(page.get_by_role("row", name=re.compile("^bulk"))).to_contain_text("yes")
    page.get_by_role("link", name="Schedules").click()
    page.get_by_role("row", name=re.compile("^nightly")).get_by_role("button", name="Pause").click()
    expect(page.get_by_role("row", name=re.compile("^nightly"))).to_contain_text("paused")
    page.get_by_role("link", name="Tasks").click()
    page.get_by_role("link", name=re.compile("Failed 2")).click()
    page.get_by_label(re.compile("Select charge_card")).check()
    page.get_by_role("button", name="Requeue…").click()
    page.get_by_role("button", name="Requeue 1 task").click()
    _notice(page, "1 task was queued again.")
    page.get_by_role("link", name="write_log").click()
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Delete 1 task").click()
    _notice(page, "1 task was deleted.")
    assert own.tasks(state="failed") == []


@pytest.mark.parametrize("script", [True, False])
def test_the_theme_is_chosen_and_kept(script: bool, opened: Opened, house: House) -> None:
    page = opened("read", java_script_enabled=script, color_scheme="light")
    page.goto(f"{house.base}/tasks?state=failed")
    theme = page.get_by_label("Theme")
    if script:
        with page.expect_response(re.compile("/theme$")):
            theme.select_option("dark")
    else:
        theme.select_option("dark")
        page.get_by_role("button", name="Set").click()
        expect(page).to_have_url(f"{house.base}/tasks?state=failed")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("body")).to_have_css("background-color", "rgb(14, 18, 23)")
    page.goto(f"{house.base}/workers")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_keys_alone_are_enough(page: Page, own: House) -> None:
    page.goto(own.base)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("charge_card")  # a j is typed here, and moves nothing
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("text=charge_card"))
    page.wait_for_load_state()  # before that, nobody listens to keys
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator("[data-row]").nth(1).get_by_role("link")).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("x")
    expect(page.locator("[data-row]").nth(0).get_by_role("checkbox")).to_be_checked()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("charge_card")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Requeue":
            break
    page.keyboard.press("Enter")
    _notice(page, "1 task was queued again.")


def test_the_keyboards_focus_is_seen(page: Page, house: House) -> None:
    page.goto(house.base)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
