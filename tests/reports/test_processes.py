"""Reports on processes: killed, deployed, mounted, or with another version's tasks."""

import signal
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks
from face.diary import note
from face.processes import TIMEOUT, eventually, record, uvicorn, write_application
from face.serving import an_engine, records, serving, until

pytestmark = pytest.mark.afterwards(real=True)

WAITING = pytest.mark.parametrize(
    ("path", "name"), [("wait", "wait_until_told"), ("wait_in_thread", "wait_in_thread_until_told")]
)


@WAITING
def test_what_ran_when_its_process_was_killed_runs_again(tmp_path: Path, path: str, name: str) -> None:
    """After a worker was killed its jobs stayed as if they ran, for hours or for ever, under any later worker.

    https://github.com/procrastinate-org/procrastinate/issues/1518
    """
    write_application(tmp_path, "Afterwards(app, lease=1)")
    with uvicorn(tmp_path) as server:
        server.post(f"/{path}/one")
        server.writes("one began")
        server.signal(signal.SIGKILL)
    (tmp_path / "go").touch()
    with uvicorn(tmp_path):
        eventually(lambda: record(tmp_path, name)[0]["state"] == "succeeded")
    [task] = record(tmp_path, name)
    assert (task["attempt"], task["kinds"], task["failed"]) == (2, ["crashed"], 0)


def test_a_deploy_counts_as_no_failure_of_what_it_interrupts(tmp_path: Path) -> None:
    """A deploy cancelled long jobs, and each time that was one of the attempts that they had.

    https://github.com/python-arq/arq/issues/267
    """
    write_application(tmp_path, "Afterwards(app, grace=0.1)")
    for _ in range(2):
        with uvicorn(tmp_path) as server:
            if not server.diary():
                server.post("/wait/one")
            eventually(lambda: server.diary() and record(tmp_path, "wait_until_told")[0]["state"] == "running")
            server.stops()
    (tmp_path / "go").touch()
    with uvicorn(tmp_path) as server:
        server.writes("one ended")
        eventually(lambda: record(tmp_path, "wait_until_told")[0]["state"] == "succeeded")
    [task] = record(tmp_path, "wait_until_told")
    assert set(task["kinds"]) <= {"released"} and task["failed"] == 0


def test_a_function_that_the_deployed_code_does_not_know_waits_for_code_that_does(tmp_path: Path) -> None:
    """Workers of another version took messages of a task that they did not know, and deleted them.

    https://github.com/celery/celery/issues/3582
    """
    write_application(tmp_path, "Afterwards(app, worker=False)")
    with uvicorn(tmp_path) as server:
        server.post("/note/kept")
        server.stops()
    main = tmp_path / "main.py"
    old = main.read_text()
    main.write_text(old.replace("def note(", "def remark(").replace("worker=False", "worker=True"))
    with uvicorn(tmp_path) as server:
        server.post("/wait_in_thread/other")
        server.writes("other began")
        assert [task["state"] for task in record(tmp_path, "note")] == ["queued"]
        (tmp_path / "go").touch()
        server.stops()
    named = old.replace("@task\nasync def note(", '@task(aliases=["note"])\nasync def remark(')
    main.write_text(named.replace("worker=False", "worker=True"))
    with uvicorn(tmp_path) as server:
        server.writes("kept")
        eventually(lambda: record(tmp_path, "note")[0]["state"] == "succeeded")
    assert server.diary().count("kept") == 1


def test_what_depends_on_a_task_that_died_with_its_process_does_not_wait_for_ever(tmp_path: Path) -> None:
    """A job was lost with its container, and those that depended on it stayed deferred.

    https://github.com/rq/rq/issues/2006
    """
    write_application(
        tmp_path,
        """
        Afterwards(app, lease=1)

        @task(rerun_after_crash=False)
        async def die() -> None:
            await wait_until_told.function("die")

        @app.post("/die")
        async def dying(tasks: BackgroundTasks) -> None:
            tasks.add_task(die)
            tasks.add_task(note, "behind")
        """,
    )
    with uvicorn(tmp_path) as server:
        server.post("/die")
        server.writes("die began")
        server.signal(signal.SIGKILL)
    with uvicorn(tmp_path) as server:
        server.post("/note/another")
        server.writes("another")
        eventually(lambda: record(tmp_path, "die")[0]["state"] == "failed")
        eventually(lambda: [one["state"] for one in record(tmp_path, "note")] == ["cancelled", "succeeded"])


@pytest.mark.anyio
async def test_an_application_mounted_in_another_one_runs_its_tasks(tmp_path: Path, said: list[str]) -> None:
    """The start-up of an application that was mounted in another one never ran, nor what it starts.

    https://github.com/fastapi/fastapi/issues/811
    """
    outer, inner = FastAPI(), FastAPI()
    outer.mount("/inner", inner)
    installed = [Afterwards(outer, an_engine(tmp_path)), Afterwards(inner, f"sqlite:///{tmp_path / 'inner.db'}")]

    @outer.get("/")
    async def from_outside(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "outer")

    @inner.get("/")
    async def from_inside(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "inner")

    async with serving(outer) as http:
        for path in ("/", "/inner/", "/inner/", "/"):
            assert (await http.get(path)).status_code == 200
        await until(lambda: sorted(said) == ["inner", "inner", "outer", "outer"])
        stored = [[task.arguments for task in await records(one)] for one in installed]
    assert stored == [['{"text":"outer"}'] * 2, ['{"text":"inner"}'] * 2]


def test_a_request_during_a_deploy_is_answered_and_its_task_runs_later(tmp_path: Path) -> None:
    """A server waited for its background tasks before it ended, or lost them, and nobody knew how to deploy.

    https://github.com/fastapi/fastapi/issues/3115
    """
    write_application(tmp_path, "Afterwards(app, grace=0.1)")
    with uvicorn(tmp_path) as server:
        server.post("/wait_in_thread/slow")
        server.writes("slow began")
        with httpx.Client(base_url=server.url, timeout=TIMEOUT) as client:
            for number in range(20):
                assert client.post(f"/note/{number}").status_code == 200
        server.signal(signal.SIGTERM)
        server.ends()
    (tmp_path / "go").touch()
    with uvicorn(tmp_path) as server:
        server.writes("slow ended", *map(str, range(20)))
    diary = server.diary()
    assert [diary.count(str(number)) for number in range(20)] == [1] * 20
