"""Each page shows what it should."""

import re

import pytest
from playwright.sync_api import Page, expect

from e2e.conftest import House, Houses, Opened, Seen


def test_the_overview_shows_numbers_the_chart_and_what_failed_last(page: Page, house: House) -> None:
    page.goto(house.base)
    expect(page.locator(".numbers")).to_contain_text("2 queued, 2 scheduled, 1 waiting")
    expect(
        page.get_by_role(
            "img", name=re.compile("^1 attempts succeeded, 1 failed for good and 1 are to be retried, in 1 hour")
        )
    ).to_be_visible()
    failed = page.get_by_role("table", name="The tasks that failed last")
    expect(failed.get_by_role("row")).to_have_count(3)
    expect(failed).to_contain_text("the gateway did not answer")
    expect(page.get_by_text("staging")).to_be_visible()
    page.get_by_role("link", name="7 days").click()
    expect(page).to_have_url(f"{house.base}?span=7d")
    expect(page.get_by_role("img", name=re.compile("in 7 days"))).to_be_visible()


def test_plain_functions_are_seen_running_and_failed(page: Page, house: House) -> None:
    page.goto(f"{house.base}/workers")
    expect(page.get_by_role("table", name="Plain functions, running now")).to_contain_text("write_log")
    page.goto(f"{house.base}/tasks?state=failed")
    page.get_by_role("link", name="write_log").click()
    expect(page.get_by_text("plain function")).to_be_visible()
    expect(page.get_by_text("gateway.charge")).to_be_visible()
    expect(page.get_by_role("button", name="Requeue")).to_have_count(0)


def test_workers_show_what_they_run_their_lag_and_version(page: Page, house: House) -> None:
    page.goto(f"{house.base}/workers")
    alive = page.locator(".worker", has_text="process 4711")
    for text in ("alive", "2 of 20", "12 ms", "0.1.0", "import_rows", "412 of 1,000 rows (41 %)"):
        expect(alive).to_contain_text(text)
    expect(page.locator(".worker", has_text="process 12")).to_contain_text("left")


def test_schedules_are_in_plain_english(page: Page, house: House) -> None:
    page.goto(f"{house.base}/schedules")
    row = page.get_by_role("row", name=re.compile("nightly_report"))
    expect(row).to_contain_text("At 03:00 every day (Europe/Berlin)")
    expect(page.get_by_role("row", name=re.compile("sync_orders"))).to_contain_text("Every 5 min")


def test_the_list_has_tabs_filters_and_the_way_back(page: Page, house: House) -> None:
    page.goto(f"{house.base}/tasks")
    expect(page.locator("[data-row]")).to_have_count(11)
    page.get_by_label("Function").fill("charge_card")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("[data-row]")).to_have_count(2)
    page.get_by_role("link", name=re.compile("Failed 1")).click()
    expect(page).to_have_url(re.compile(r"\?state=failed&name=charge_card$"))
    expect(page.locator("[data-row]")).to_have_count(1)
    page.get_by_role("link", name="Clear").click()
    expect(page.locator("[data-row]")).to_have_count(2)
    page.go_back()
    expect(page.locator("[data-row]")).to_have_count(1)


@pytest.mark.parametrize("text", ["rows.csv", "gateway did not", "SIGNUP", "4900"])
def test_text_is_found_in_arguments_errors_and_requests(text: str, page: Page, house: House) -> None:
    page.goto(f"{house.base}/tasks")
    page.get_by_label("Search").fill(text)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("text="))
    expect(page.locator("[data-row]").first).to_be_visible()
    page.goto(f"{house.base}/tasks?text=nothing+has+this")
    expect(page.get_by_text("No task matches.")).to_be_visible()


def test_a_task_tells_its_whole_history(page: Page, house: House) -> None:
    page.goto(f"{house.base}/tasks/{house.one(state='failed', name='charge_card')['id']}")
    expect(page.locator(".timeline > li .event strong")).to_have_text(
        [
            "Added",
            "Attempt 1 raised an exception",
            "Attempt 2 lost its worker: its process died, or its lease ran out",
            "Attempt 2 ended after its lease was lost: its end was refused",
            "Attempt 3 raised an exception",
            "Failed for good",
        ]
    )
    last = page.locator(".timeline > li").nth(4)
    expect(last.locator("pre.own")).to_contain_text("await gateway.charge(card, amount)")
    library = last.locator("details details pre")
    expect(library).to_be_hidden()
    last.get_by_text("2 frames of libraries").click()
    expect(library).to_contain_text("mapped_exc")
    expect(last.get_by_role("table", name="What this attempt logged")).to_contain_text("charging 4900 cents")
    expect(page.get_by_text("4bf92f3577b34da6a3ce929d0e0e4736")).to_be_visible()
    expect(page.get_by_text("POST /signup/{email}").first).to_be_visible()


def test_numbers_keep_all_their_digits(page: Page, house: House) -> None:
    page.goto(f"{house.base}/tasks/{house.one(state='succeeded')['id']}")
    arguments, result = page.get_by_label("Arguments", exact=True), page.get_by_label("Result")
    expect(arguments).to_contain_text("n: 90071992547409931234")
    expect(result).to_contain_text("rows: 90071992547409931234")
    expect(result).to_contain_text("empty array")


def test_a_chain_is_linked_in_both_directions(page: Page, house: House) -> None:
    page.goto(f"{house.base}/tasks/{house.one(state='running', name='import_rows')['id']}")
    page.get_by_label("Chain").get_by_role("link", name="nightly_report").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("waiting")
    page.get_by_label("Chain").get_by_role("link", name="import_rows").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("running")


def test_what_is_set_aside_or_asked_to_stop_says_why(page: Page, house: House) -> None:
    page.goto(f"{house.base}/tasks/{house.one(state='queued', name='charge_card')['id']}")
    expect(page.locator(".warning")).to_contain_text("was written by a newer version")
    page.goto(f"{house.base}/tasks/{house.one(state='running', name='resize_image')['id']}")
    expect(page.locator(".warning")).to_contain_text("the customer asked for it")


def test_an_empty_store_shows_the_lines_that_add_a_task(page: Page, houses: Houses) -> None:
    empty = houses(seed="empty", prefix="/e")
    for path in ("", "/tasks", "/queues"):
        page.goto(empty.base + path)
        expect(page.locator("pre.code")).to_contain_text("background_tasks.add_task(send_welcome")
    page.goto(f"{empty.base}/workers")
    expect(page.get_by_text("No worker is alive")).to_be_visible()


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/tasks/0192e4a0-0000-7000-8000-000000000000", 404, "no task has the id"),
        ("/tasks/<b>", 404, "no task has the id <b>"),
        ("/nowhere", 404, "Not found"),
        ("/tasks?state=lost", 422, "There is no state “lost”"),
        ("/tasks?since=1y", 422, "no span of time"),
        ("/tasks?before=1", 422, "the list goes on below the id of a task"),
        ("/?span=1y", 422, "is no span of the chart"),
        ("/tasks/confirm?act=requeue", 422, "No task is selected"),
        ("/tasks/confirm?act=burn&all=1", 422, "There is no act “burn”"),
    ],
)
def test_what_goes_wrong_is_a_page(path: str, status: int, text: str, page: Page, house: House, seen: Seen) -> None:
    seen.allow("Failed to load resource")
    answer = page.goto(house.base + path)
    assert answer is not None
    assert answer.status == status
    expect(page.get_by_role("main")).to_contain_text(text)
    page.get_by_role("main").get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")


def test_a_reader_sees_everything_and_is_offered_nothing(opened: Opened, house: House, seen: Seen) -> None:
    page = opened("read")
    for path in ("", "/queues", "/tasks", "/schedules", "/workers", f"/tasks/{house.one(state='succeeded')['id']}"):
        page.goto(house.base + path)
        expect(page.get_by_role("main").locator("form[method=post], button[name=act]")).to_have_count(0)
    expect(page.get_by_text("You may look, and not change anything")).to_be_visible()
    seen.allow("403")
    answer = page.goto(f"{house.base}/tasks/confirm?act=requeue&all=1")
    assert answer is not None
    assert answer.status == 403
    expect(page.get_by_role("heading", level=1)).to_have_text("Not permitted")
