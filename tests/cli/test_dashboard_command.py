"""``afterwards dashboard``, stand-alone: who gets in, and that it ends at once."""

import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from cli.commands import afterwards
from face.processes import TIMEOUT, Program

pytestmark = pytest.mark.afterwards(real=True)


def serving(folder: Path, *arguments: str) -> Program:
    return Program([sys.executable, "-m", "afterwards", "dashboard", *arguments], folder)


@pytest.fixture
def served(shop: Path) -> Iterator[Program]:
    with serving(shop) as program:
        yield program


@contextmanager
def browser(address: str) -> Iterator[httpx.Client]:
    """A browser that has opened the printed address."""
    with httpx.Client(base_url=address.partition("/enter")[0], timeout=TIMEOUT) as client:
        entered = client.get(address)
        assert entered.status_code == 303, entered.text
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        yield client


def address_of(program: Program) -> str:
    return program.says(r"http://127\.0\.0\.1:\d+/enter\?token=\S+")[0]


def test_only_who_has_opened_the_address_gets_in_and_only_once(served: Program) -> None:
    address = address_of(served)
    with browser(address) as client:
        tasks = client.get("/afterwards/api/tasks", params={"state": "failed"}).json()["tasks"]
        assert [task["name"] for task in tasks] == ["send"] * 3
        requeue = {"ids": [tasks[0]["id"]]}
        for site, code in (("cross-site", 403), ("same-origin", 200)):
            answer = client.post("/afterwards/api/tasks/requeue", json=requeue, headers={"Sec-Fetch-Site": site})
            assert answer.status_code == code
    with httpx.Client(base_url=address.partition("/enter")[0], timeout=TIMEOUT) as stranger:
        assert stranger.get("/afterwards/api/tasks").status_code == 401
        assert stranger.get(address).status_code == 401
        assert stranger.get("/enter", params={"token": "guess"}).status_code == 401
        assert stranger.get("/afterwards/api/tasks", headers={"Host": "evil.example"}).status_code == 400
    with socket.socket() as elsewhere:
        assert elsewhere.connect_ex(("127.0.0.2", urlsplit(address).port)) != 0  # only the one address is bound
    served.signal(signal.SIGINT)
    assert served.ends() == 0
    assert "Traceback" not in served.output


def test_read_only_permits_no_change(shop: Path) -> None:
    with serving(shop, "--read-only") as program, browser(address_of(program)) as client:
        failed = client.get("/afterwards/api/tasks", params={"state": "failed"}).json()["tasks"][0]["id"]
        same_site = {"Sec-Fetch-Site": "same-origin"}
        refused = client.post("/afterwards/api/tasks/requeue", json={"ids": [failed]}, headers=same_site)
        assert refused.status_code == 403


def test_what_is_wrong_is_one_line(shop: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = afterwards(shop, "dashboard", "--port", str(taken.getsockname()[1]))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"--port \d+: Address already in use", done.stderr)
    done = afterwards(shop, "dashboard", "--url", "postgresql://me:secret-pw@127.0.0.1:1/db")
    assert (done.returncode, done.stdout) == (3, "")
    assert "secret-pw" not in done.stderr
