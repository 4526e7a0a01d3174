"""The code of docs/celery.md, all of it in one module, served and run by a Celery worker as the page says."""

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from celery_calls.fleet import a_redis_server, run_command
from face.processes import Program, eventually
from servers.redis import RedisServer

PAGE = Path(__file__).parents[2] / "docs" / "celery.md"
PLACES = {
    '"amqp://localhost"': '"{broker}", backend="{broker}"',
    '"postgresql://localhost/shop"': '"sqlite:///tasks.db"',
}
RECORDS = """
@app.get("/records/{id}")
async def record(id: str):
    found = await (await tasks.get(id)).status()
    return {"state": found.state, "result": found.result}
"""

pytestmark = pytest.mark.xdist_group("celery-docs")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with a_redis_server() as server:
        yield server


@pytest.fixture
def folder(redis: RedisServer, tmp_path: Path) -> Path:
    """A folder with the page's code as main.py; only the addresses are others."""
    code = "\n\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    for written, meant in PLACES.items():
        assert written in code
        code = code.replace(written, meant.format(broker=redis.url))
    (tmp_path / "main.py").write_text(code + RECORDS)
    return tmp_path


def test_the_code_of_the_page_runs_as_it_says(folder: Path) -> None:
    with ExitStack() as stack:
        web = stack.enter_context(Program([sys.executable, "-m", "uvicorn", "main:app", "--port", "0"], folder))
        http = stack.enter_context(httpx.Client(base_url=web.url, timeout=60, trust_env=False))
        ours = http.post("/signup/ada@example.org").json()["task"]
        theirs = http.post("/photos/cat.png").json()["celery_task"]
        assert http.post("/photos/cat.png/again").status_code == 200

        said = run_command(folder, "check", code=1)
        assert "send_welcome, worker: no worker lives (1 task, " in said.stdout
        assert "no Celery worker answers: start one with `celery -A main:celery_app worker`" in said.stderr
        assert "no Celery worker answers" in " ".join(run_command(folder, "doctor", code=1).stdout.split())

        command = "-m celery -A main:celery_app worker --pool solo --prefetch-multiplier 1 --loglevel INFO"
        worker = stack.enter_context(Program([sys.executable, *command.split()], folder))
        result = {"state": "succeeded", "result": "Welcome, ada@example.org!"}
        eventually(lambda: http.get(f"/records/{ours}").json() == result)
        worker.says(rf"Task main\.resize\[{theirs}\] succeeded in .*: 'cat.png at 400'")
        assert "this code can run every unfinished task" in run_command(folder, "check", code=0).stderr
        assert "its workers answer, and know this application" in run_command(folder, "doctor", code=0).stdout


def test_a_fleet_that_exists_already_runs_tasks_when_it_includes_the_application(folder: Path) -> None:
    main = (folder / "main.py").read_text()
    made = re.search(r'^celery_app = Celery\("main", (.*)\)$', main, re.MULTILINE)
    assert made is not None
    (folder / "proj.py").write_text(f'from celery import Celery\n\napp = Celery("proj", {made[1]}, include=["main"])\n')
    (folder / "main.py").write_text(main.replace(made[0], "from proj import app as celery_app"))
    with ExitStack() as stack:
        web = stack.enter_context(Program([sys.executable, "-m", "uvicorn", "main:app", "--port", "0"], folder))
        http = stack.enter_context(httpx.Client(base_url=web.url, timeout=60, trust_env=False))
        ours = http.post("/signup/ada@example.org").json()["task"]
        celery = Path(sys.executable).with_name("celery")
        stack.enter_context(Program([str(celery), "-A", "proj", "worker", "--pool", "solo"], folder))
        eventually(lambda: http.get(f"/records/{ours}").json()["state"] == "succeeded")
