"""A browser, and servers for it. A page that writes an error to its console fails its test."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from e2e.seeds import Texts
from servers.missing import missing

TESTS = Path(__file__).parent.parent

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one module in one process of pytest, where they share a browser."""
    for item in items:
        if TESTS / "e2e" in item.path.parents:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine; Playwright brings none along here."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        missing("no Chromium is installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@dataclass(frozen=True)
class House:
    """A server, and the address of its dashboard."""

    process: subprocess.Popen[str]
    origin: str
    base: str

    def tasks(self, **query: str) -> list[dict[str, Any]]:
        """Return the records of tasks, as the API has them."""
        answer = httpx.get(f"{self.base}/api/tasks", params={"limit": "200", **query}, headers={"level": "act"})
        answer.raise_for_status()
        return list(answer.json()["tasks"])

    def one(self, **query: str) -> dict[str, Any]:
        [task] = self.tasks(**query)
        return task

    def post(self, path: str) -> None:
        httpx.post(f"{self.origin}{path}").raise_for_status()


Houses = Callable[..., House]


@pytest.fixture(scope="module")
def houses() -> Iterator[Houses]:
    """Start servers, each with the tasks that the test asks for."""
    running: list[subprocess.Popen[str]] = []

    def started(outside: str | None = None, **setting: Any) -> House:
        process = subprocess.Popen(
            [sys.executable, "-m", "e2e.server", json.dumps(setting)],
            cwd=TESTS,
            env={**os.environ, "AFTERWARDS_ENVIRONMENT": "staging"},
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        origin = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        prefix = setting.get("prefix", "/afterwards")
        httpx.get(origin, timeout=60)  # answers once the tasks are stored
        return House(process, origin, f"{origin}{prefix}")

    yield started
    for process in running:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def house(houses: Houses) -> House:
    """A server with a task in every state, which the module's tests share: none of them may change it."""
    return houses()


@pytest.fixture
def own(houses: Houses) -> House:
    """A server with a task in every state, which the test may change."""
    return houses()


@dataclass(frozen=True)
class Seen:
    """What a page has written to its console, and what it could not load."""

    errors: list[str]
    allowed: list[str]

    def allow(self, text: str) -> None:
        self.allowed.append(text)


@pytest.fixture
def seen() -> Iterator[Seen]:
    kept = Seen([], [])
    yield kept
    assert [error for error in kept.errors if not any(text in error for text in kept.allowed)] == []


Opened = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, seen: Seen) -> Iterator[Opened]:
    """Open pages, each as a visitor without cookies."""
    contexts = []

    def new_page(level: str = "act", **options: Any) -> Page:
        context = browser.new_context(extra_http_headers={"level": level}, **options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()

        def told(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                seen.errors.append(f"{message.text} ({message.location.get('url', '')})")

        page.on("console", told)
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.add_init_script("window.fired = () => console.error('a payload was run')")
        return page

    yield new_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(opened: Opened) -> Page:
    return opened()


@pytest.fixture
def texts() -> Texts:
    """What the tasks of the server say."""
    return Texts()
