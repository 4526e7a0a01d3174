"""Every example does what it says, as a user starts it: `cd examples && uvicorn …`."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from afterwards.core.task import NewTask, task_id
from afterwards.engines.sqlite import SQLiteEngine
from chaos.server import TESTS, TIMEOUT, Server, wait_until

EXAMPLES = TESTS.parent / "examples"

Serve = Callable[..., httpx.Client]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts an example; its files lie in `tmp_path`, where it runs."""
    with ExitStack() as stack:

        def start(*target: str, **environment: str) -> httpx.Client:
            server = Server(*target, folder=tmp_path, app_dir=EXAMPLES, environment=environment)
            stack.enter_context(server)
            stack.callback(lambda: print(server.log()))  # shown when the test fails
            server.wait_until_it_serves()
            return stack.enter_context(httpx.Client(base_url=server.url, timeout=TIMEOUT, trust_env=False))

        yield start


def lines(file: Path, expected: int) -> list[str]:
    """The lines of a file, once there are as many as expected."""
    wait_until(lambda: file.exists() and file.read_text().count("\n") >= expected, f"{expected} lines in {file.name}")
    return file.read_text().splitlines()


def test_the_quick_start(serve: Serve, tmp_path: Path) -> None:
    client = serve("quickstart:app")
    assert client.post("/signup/ada@example.com").json() == {"message": "Welcome!"}
    assert client.get("/").json() == {"message": "Come in!"}
    assert lines(tmp_path / "mails.txt", 1) == ["Welcome, ada@example.com!"]
    assert lines(tmp_path / "visits.txt", 1) == ["/"]
    assert (tmp_path / "afterwards.db").exists()


def test_retries(serve: Serve, tmp_path: Path) -> None:
    client = serve("retries:app")
    for kind in ("flaky", "slow", "busy"):
        assert client.post(f"/reports/{kind}").status_code == 202
    assert sorted(lines(tmp_path / "reports.txt", 3)) == [
        "busy report made",
        "flaky report made, call 3",
        "make_slow_report failed in attempt 2: took longer than its timeout of 0.5 s",
    ]


def test_many(serve: Serve, tmp_path: Path) -> None:
    client = serve("many:app")
    assert client.post("/newsletters/spring").json()["mails"] == 1000
    assert len(set(lines(tmp_path / "mails.txt", 1000))) == 1000
    assert lines(tmp_path / "reports.txt", 1) == ["spring was sent out"]


def test_later(serve: Serve, tmp_path: Path) -> None:
    client = serve("later:app")
    begun = datetime.now(UTC)
    assert client.post("/trials/ada").status_code == 200
    at = begun + timedelta(seconds=1)
    assert client.post("/reminders/ada", params={"at": at.isoformat()}).status_code == 200
    mails = ["ada: Your trial has begun.", "ada: You asked to be reminded.", "ada: Your trial has ended."]
    assert lines(tmp_path / "mails.txt", 2) == mails[:2]
    assert datetime.now(UTC) >= at
    assert lines(tmp_path / "mails.txt", 3) == mails
    assert datetime.now(UTC) >= begun + timedelta(seconds=2)


def test_isolation(serve: Serve, tmp_path: Path) -> None:
    client = serve("isolation:app")
    for kind in ("thorough", "endless", "broken"):
        assert client.post(f"/checks/{kind}").status_code == 202
    assert client.get("/").json() == {"message": "Still here."}
    said = sorted(lines(tmp_path / "checks.txt", 3))
    assert said[0].startswith("broken: the process of the function was killed by SIGSEGV")
    assert said[1] == "endless: took longer than its timeout of 1 s, and its process was killed"
    assert said[2] == "thorough: 78498 primes"


def test_schedules(serve: Serve, tmp_path: Path) -> None:
    client = serve("schedules:app")
    assert {"check the stock"} == set(lines(tmp_path / "diary.txt", 2))
    client.post("/reports").raise_for_status()
    wait_until(lambda: "report for everybody" in (tmp_path / "diary.txt").read_text(), "the report")
    client.post("/stock/pause").raise_for_status()
    shown = {one["name"]: one for one in client.get("/schedules").json()}
    assert (shown["check_stock"]["paused"], shown["check_stock"]["next_fire"]) == (True, None)
    report = shown["make_report"]
    assert (report["expression"], report["tz"], report["last_fire"]) == ("0 3 * * MON-FRI", "Europe/Rome", None)
    client.post("/stock/resume").raise_for_status()


def test_a_time_without_a_zone_is_refused(serve: Serve) -> None:
    assert serve("later:app").post("/reminders/ada?at=2030-01-01T09:00:00").status_code == 422


def test_upload(serve: Serve, tmp_path: Path) -> None:
    client = serve("upload:app")
    prices = {"file": ("prices.csv", b"sku,price\ncup,100\nplate,250\n")}
    assert client.post("/prices", files=prices).status_code == 202
    expected = ["prices.csv: cup costs 100", "prices.csv: plate costs 250"]
    assert lines(tmp_path / "prices.txt", 2) == expected
    pictures = [("files", ("a.png", b"abc", "image/png")), ("files", ("b.png", b"", "image/png"))]
    assert client.post("/pictures", files=pictures).json() == {"files": 2}
    expected += ["a.png: 3 bytes of image/png", "b.png: 0 bytes of image/png"]
    assert lines(tmp_path / "prices.txt", 4) == expected
    refused = client.post("/prices", files={"file": bytes(2_000_000)})
    assert (refused.status_code, refused.json()) == (413, {"detail": "give a file of at most 1000000 bytes"})


def test_order(serve: Serve, tmp_path: Path) -> None:
    client = serve("order:app")
    client.post("/videos/cats").raise_for_status()
    assert lines(tmp_path / "steps.txt", 3) == ["cats: downloaded", "cats: converted", "cats: published"]
    last = client.post("/videos/broken?damaged=true").json()["published_by"]
    wait_until(lambda: client.get(f"/tasks/{last}").json()["state"] == "cancelled", "the last step to be cancelled")
    assert "convert" in client.get(f"/tasks/{last}").json()["reason"]
    client.post("/newsletters").raise_for_status()
    assert sorted(lines(tmp_path / "steps.txt", 6)[4:]) == ["newsletter for ada", "newsletter for eve"]


def test_status(serve: Serve) -> None:
    client = serve("status:app")
    id = client.post("/sums?numbers=1&numbers=2&numbers=39").json()["task"]
    wait_until(lambda: client.get(f"/sums/{id}").json()["state"] == "succeeded", "the sum")
    assert client.get(f"/sums/{id}").json()["result"] == 42
    slow = client.post("/sums?numbers=1&pause=60").json()["task"]
    wait_until(lambda: client.get(f"/sums/{slow}").json()["state"] == "running", "the slow sum to begin")
    client.delete(f"/sums/{slow}").raise_for_status()
    wait_until(lambda: client.get(f"/sums/{slow}").json()["state"] == "cancelled", "the slow sum to stop")
    assert client.get(f"/sums/{slow}").json()["reason"] == "the client changed its mind"
    assert client.post("/sums-at-once?numbers=20&numbers=22").json() == 42
    assert client.get("/sums/01a1fbf1-78b4-7adc-9dcc-e1e534311e06").status_code == 404


def test_transaction(serve: Serve, tmp_path: Path) -> None:
    client = serve("transaction:app")
    assert [client.post(f"/people/{name}").status_code for name in ("ada", "ada", "bob")] == [201, 409, 201]
    assert sorted(lines(tmp_path / "greetings.txt", 2)) == ["Welcome, ada!", "Welcome, bob!"]
    with closing(sqlite3.connect(tmp_path / "people.db")) as database:
        assert database.execute("SELECT count(*) FROM afterwards_tasks").fetchone() == (2,)


def test_a_check_before_a_deploy(tmp_path: Path) -> None:
    asyncio.run(store(tmp_path / "afterwards.db", "send_welcome", '{"email": "ada@example.com"}'))
    assert checked(tmp_path) == (0, "")
    asyncio.run(store(tmp_path / "afterwards.db", "send_welcome", '{"mail": "ada@example.com"}'))
    asyncio.run(store(tmp_path / "afterwards.db", "send_goodbye", '{"email": "ada@example.com"}'))
    status, said = checked(tmp_path)
    assert status == 1
    assert "send_goodbye, name: no task function has this name or alias (1 task, " in said
    assert 'send_welcome, arguments: parameter "email": it has no default, and is not stored (1 task, ' in said
    assert "example.com" not in said


async def store(file: Path, name: str, arguments: str) -> None:
    async with SQLiteEngine(file) as engine:
        id = task_id(datetime.now(UTC), os.urandom(10))
        await engine.enqueue([NewTask(id=id, name=name, arguments=arguments)])


def checked(folder: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "check", "quickstart:tasks"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("AFTERWARDS")}
    environment["PYTHONPATH"] = str(EXAMPLES)
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert ran.stderr == ""
    return ran.returncode, ran.stdout


def test_operate(serve: Serve) -> None:
    client = serve("operate:app")
    id = client.post("/sync/ada?token=s3cr3t-t0ken").raise_for_status().json()["id"]
    wait_until(lambda: client.get("/failed").json(), "the failure")
    [failed] = client.get("/failed").json()
    assert (failed["id"], failed["arguments"]) == (id, {"user": "ada", "token": "[hidden]"})
    assert failed["failures"][0]["message"] == "refused ada with [hidden]"
    assert "s3cr3t" not in client.get("/failed").text
    assert client.post("/failed/requeue").json() == {"requeued": 1}
    wait_until(lambda: client.get("/stats").json()["states"]["succeeded"] == 1, "the task to succeed")
    assert client.get("/failed").json() == []


def test_progress(serve: Serve) -> None:
    client = serve("progress:app")
    ids = client.post("/imports?rows=40").raise_for_status().json()
    wait_until(lambda: 0 < (client.get(f"/tasks/{ids['import']}").json()["done"] or 0) < 40, "some of the rows")
    wait_until(lambda: client.get(f"/tasks/{ids['resize']}").json()["state"] == "succeeded", "both tasks")
    imported, resized = (client.get(f"/tasks/{ids[name]}").json() for name in ("import", "resize"))
    assert (imported["done"], imported["of"]) == (40, 40)
    assert imported["result"].startswith("imported in attempt 1, 20")
    assert (resized["done"], resized["of"]) == (3, 3)


def test_the_progress_page(serve: Serve) -> None:
    client = serve("progress_page:app")
    assert "EventSource" in client.get("/").text
    task = client.post("/imports?rows=20").raise_for_status().headers["Location"]
    with client.stream("GET", f"{task}/events") as events:
        lines = list(events.iter_lines())
    seen = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert any(0 < status["progress"]["fraction"] < 1 for status in seen if status["progress"])
    assert [line for line in lines if line.startswith("event: ")][-1] == "event: finished"
    assert (seen[-1]["state"], seen[-1]["progress"]["fraction"]) == ("succeeded", 1)
    assert client.get(f"{task}/result").json() == "20 rows imported"


def test_limits_of_all_processes_together(serve: Serve, tmp_path: Path) -> None:
    client = serve("limits:app", "--workers", "2")
    for user in ("ada", "eve"):
        client.post(f"/reports?user={user}&count=4").raise_for_status()
    client.post("/calls?count=5").raise_for_status()
    logged = [line.split(maxsplit=1) for line in sorted(lines(tmp_path / "log.txt", 2 * 2 * 4 + 5))]
    for user in ("ada", "eve"):
        turns = [what.split()[0] for _, what in logged if user in what]
        assert turns == ["begin", "end"] * 4
    calls = [float(at) for at, what in logged if what.startswith("call")]
    assert all(third - first > 0.5 for first, third in zip(calls, calls[2:], strict=False))


def test_queues(serve: Serve, tmp_path: Path) -> None:
    client = serve("queues:app")
    client.post("/pause").raise_for_status()
    for text, priority in (("news", 0), ("old news", -5), ("urgent", 50)):
        client.post(f"/mails?text={text}&priority={priority}").raise_for_status()
    assert client.post("/mails?text=too+much").status_code == 429
    assert not (tmp_path / "mails.txt").exists()
    assert client.post("/resume").json() == {"queues": [], "names": []}
    assert lines(tmp_path / "mails.txt", 3) == ["urgent", "news", "old news"]


def test_unique(serve: Serve, tmp_path: Path) -> None:
    client = serve("unique:app")
    refreshed = [client.post(f"/pages/home/refresh?why={why}").json()["task"] for why in ("first", "second")]
    assert refreshed[0] == refreshed[1]
    for _ in range(2):
        client.post("/orders", headers={"Idempotency-Key": '"order-1"'}).raise_for_status()
    assert sorted(lines(tmp_path / "done.txt", 3)) == ["bill 1", "goods", "refreshed home: first"]
    assert client.get("/bills/1").json()["name"] == "send_bill"


def test_flow(serve: Serve, tmp_path: Path) -> None:
    client = serve("flow:app")
    published = client.post("/videos/cats").json()["published"]
    client.post(f"/videos/cats/announce/{published}").raise_for_status()
    steps = lines(tmp_path / "steps.txt", 4)
    assert steps[:2] == ["cats converted", "cats published"]
    assert sorted(steps[2:]) == ["cats announced", "cats charged"]
    broken = client.post("/videos/broken").json()["published"]
    wait_until(lambda: client.get(f"/tasks/{broken}").json()["state"] == "cancelled", "the failure to reach it")
    assert "convert" in client.get(f"/tasks/{broken}").json()["reason"]


def test_tracing(serve: Serve, tmp_path: Path) -> None:
    client = serve("tracing:app")
    client.post("/orders", headers={"X-Request-Id": "abc"}).raise_for_status()
    assert lines(tmp_path / "log.txt", 1) == ["abc packed"]


def test_the_factory_and_a_dependency(serve: Serve) -> None:
    client = serve("--factory", "factory:create_app", AFTERWARDS_URL="sqlite:///notes-tasks.db")
    assert client.post("/notes", json={"text": "buy some milk"}).json() == {"id": 1}
    counted = [{"id": 1, "text": "buy some milk", "words": 3}]
    wait_until(lambda: client.get("/notes").json() == counted, "the words to be counted")


def test_the_shop_imports_a_file_once_however_often_it_comes(serve: Serve, tmp_path: Path) -> None:
    client = serve("shop.main:app", SHOP_FOLDER=str(tmp_path))
    for price in (100, 120):
        file = f"sku,name,price\ncup,A cup,{price}\n"
        [id] = client.post("/imports", files={"file": file}).json()["tasks"]
        wait_until(lambda id=id: client.get(f"/tasks/{id}").json()["state"] == "succeeded", "the import")
        assert client.get("/products/cup").json() == {"sku": "cup", "name": "A cup", "price": price}
    assert lines(tmp_path / "views.txt", 2) == ["cup", "cup"]


@pytest.mark.timeout(120)
def test_the_demo_loses_nothing() -> None:
    demo = [sys.executable, "-m", "examples.demo"]
    shown = subprocess.run(demo, cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=100)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stderr == ""
    [total] = [line.split() for line in shown.stdout.splitlines() if line.strip().startswith("all ")]
    accepted, run, again, lost = map(int, total[1:])
    assert accepted == run > again > 0
    assert lost == 0
