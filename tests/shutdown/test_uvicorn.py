"""How a server ends under uvicorn: it drains from the signal on, and gives back what takes too long."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from face.processes import Program, eventually, record, uvicorn, write_application

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])

TWICE = "(?s){0}.*{0}"

STREAM = """
from fastapi.responses import StreamingResponse

@app.get("/events")
async def events(tasks: BackgroundTasks) -> StreamingResponse:
    async def body():
        number = 0
        while True:
            if os.path.exists("add"):
                os.remove("add")
                tasks.add_task(note, "added by the stream")
                await tasks.flush()
                await note.enqueue("enqueued by the stream")
                write("stored")
            yield f"data: {number}\\n\\n"
            number += 1
            await asyncio.sleep(0.02)
    return StreamingResponse(body(), media_type="text/event-stream")

@app.get("/slow")
async def slow(tasks: BackgroundTasks) -> str:
    tasks.add_task(note, "added by a slow request")
    await tasks.flush()
    write("slow")
    while not os.path.exists("answer"):
        await asyncio.sleep(0.01)
    return "done"
"""


@contextmanager
def listening(server: Program) -> Iterator[None]:
    """A client of the stream that does not go away."""
    with httpx.stream("GET", f"{server.url}/events", timeout=20) as response:
        events = response.iter_text()  # dropping it would close the connection
        next(events)
        yield


@SIGNALS
def test_what_runs_may_end_within_the_grace_period(tmp_path: Path, number: int) -> None:
    write_application(tmp_path, "Afterwards(app)")
    with uvicorn(tmp_path) as server:
        server.post("/wait/task")
        server.post("/wait_in_thread/thread")
        server.writes("task began", "thread began")
        server.signal(number)
        server.says("draining, 2 tasks have 20 s to end")
        server.says("Waiting for application shutdown")  # the grace period is still not over
        (tmp_path / "go").touch()
        server.ends()
    assert set(server.diary()) == {"task began", "thread began", "task ended", "thread ended"}
    for name in ("wait_until_told", "wait_in_thread_until_told"):
        assert record(tmp_path, name) == [{"state": "succeeded", "attempt": 1, "failed": 0, "crashed": 0, "kinds": []}]


def test_what_takes_longer_is_given_back_and_nothing_is_charged(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app, grace=0.2)")
    with uvicorn(tmp_path) as server:
        server.post("/wait/task")
        server.post("/wait_in_thread/thread")
        server.writes("task began", "thread began")
        server.signal(signal.SIGTERM)
        server.ends()
    assert record(tmp_path, "wait_until_told") == [
        {"state": "queued", "attempt": 1, "failed": 0, "crashed": 0, "kinds": ["released"]}
    ]
    (tmp_path / "go").touch()
    with uvicorn(tmp_path) as server:  # sees that the process is gone, whose thread nobody could stop
        server.writes("thread ended")
        eventually(lambda: record(tmp_path, "wait_in_thread_until_told")[0]["state"] == "succeeded")
    assert record(tmp_path, "wait_in_thread_until_told") == [
        {"state": "succeeded", "attempt": 2, "failed": 0, "crashed": 0, "kinds": ["released"]}
    ]


def test_nothing_is_claimed_after_the_signal_although_a_client_is_connected(tmp_path: Path) -> None:
    write_application(tmp_path, STREAM, "Afterwards(app)")
    with uvicorn(tmp_path) as server:
        with listening(server):
            server.post("/wait/task")
            server.writes("task began")
            server.signal(signal.SIGTERM)
            server.says("Waiting for connections to close")
            (tmp_path / "add").touch()
            (tmp_path / "go").touch()
            server.writes("stored", "task ended")
            assert server.process.poll() is None
        server.ends(within=15)
    assert sorted(server.diary()) == ["stored", "task began", "task ended"]
    assert [task["state"] for task in record(tmp_path, "note")] == ["queued", "queued"]


def test_the_grace_period_ends_although_a_client_is_connected(tmp_path: Path) -> None:
    """Else whoever waits for the process would kill it, and the task would pay for that."""
    write_application(tmp_path, STREAM, "Afterwards(app, grace=0.2)")
    with uvicorn(tmp_path) as server, listening(server):
        server.post("/wait/task")
        server.writes("task began")
        server.signal(signal.SIGTERM)
        server.says("task released: wait_until_told")
        assert server.process.poll() is None
        eventually(lambda: record(tmp_path, "wait_until_told")[0]["kinds"] == ["released"])


def test_uvicorns_own_limit_ends_the_connection_and_the_rest_follows(tmp_path: Path) -> None:
    write_application(tmp_path, STREAM, "Afterwards(app, grace=0.2)")
    with uvicorn(tmp_path, "--timeout-graceful-shutdown", "1") as server, listening(server):
        server.post("/wait/task")
        server.writes("task began")
        server.stops()
    assert record(tmp_path, "wait_until_told")[0]["kinds"] == ["released"]


def test_a_request_that_ends_after_the_signal_has_its_tasks_queued_at_once(tmp_path: Path) -> None:
    write_application(tmp_path, STREAM, "Afterwards(app)")
    with uvicorn(tmp_path) as server, httpx.stream("GET", f"{server.url}/events", timeout=20):
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(server.get("/slow")))
        asking.start()
        server.writes("slow")
        server.signal(signal.SIGTERM)
        server.says("Waiting for connections to close")
        (tmp_path / "answer").touch()
        asking.join()
        assert answers[0].json() == "done"
        eventually(lambda: record(tmp_path, "note")[0]["state"] == "queued")
    assert "added by a slow request" not in server.diary()


@SIGNALS
def test_a_second_signal_ends_the_grace_period(tmp_path: Path, number: int) -> None:
    write_application(tmp_path, "Afterwards(app, grace=600)")
    with uvicorn(tmp_path) as server:
        server.post("/wait/task")
        server.writes("task began")
        server.signal(number)
        server.says("Waiting for application shutdown")
        eventually(lambda: server.signal(number) or server.process.poll() is not None)  # a SIGTERM, when it is later
    assert record(tmp_path, "wait_until_told")[0]["kinds"] == ["released"]


def test_a_second_ctrl_c_ends_at_once_although_a_client_is_connected(tmp_path: Path) -> None:
    """uvicorn leaves out the end of the lifespan then; what ran is still given back."""
    write_application(tmp_path, STREAM, "Afterwards(app, grace=60)")
    with uvicorn(tmp_path) as server, listening(server):
        server.post("/wait/task")
        server.writes("task began")
        server.signal(signal.SIGINT)
        server.says("Waiting for connections to close")
        server.signal(signal.SIGINT)
        server.ends(within=15)
    assert record(tmp_path, "wait_until_told")[0]["kinds"] == ["released"]


def test_a_reload_drains_and_the_new_process_goes_on(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app, grace=0.2)")
    with uvicorn(tmp_path, "--reload") as server:
        server.post("/wait/task")
        server.writes("task began")
        write_application(tmp_path, "Afterwards(app, grace=0.2)", "# changed")
        eventually(lambda: server.diary().count("task began") == 2)
        (tmp_path / "go").touch()
        server.writes("task ended")
        server.stops()
    assert record(tmp_path, "wait_until_told") == [
        {"state": "succeeded", "attempt": 2, "failed": 0, "crashed": 0, "kinds": ["released"]}
    ]


def test_two_workers_share_a_file_and_nothing_runs_twice(tmp_path: Path) -> None:
    write_application(
        tmp_path,
        """
        Afterwards(app, concurrency=5)

        @task
        async def note_with_process(text: str) -> None:
            write(f"{text} {os.getpid()}")
            await asyncio.sleep(0.01)

        @app.post("/notes")
        async def add(tasks: BackgroundTasks) -> None:
            tasks.configure(ordered=False)
            for number in range(100):
                tasks.add_task(note_with_process, str(number))
        """,
    )
    with uvicorn(tmp_path, "--workers", "2") as server:
        server.says(TWICE.format("Application startup complete"))
        server.post("/notes")
        eventually(lambda: len(server.diary()) >= 100)
        server.stops()
    ran = [line.split() for line in server.diary()]
    assert sorted(int(number) for number, _ in ran) == list(range(100))
    assert len({process for _, process in ran}) == 2
    assert {task["attempt"] for task in record(tmp_path, "note_with_process")} == {1}


def test_two_workers_drain_when_their_parent_is_told_to_end(tmp_path: Path) -> None:
    write_application(tmp_path, "Afterwards(app, grace=0.2, concurrency=1)")
    with uvicorn(tmp_path, "--workers", "2") as server:
        server.says(TWICE.format("Application startup complete"))
        for text in ("one", "two"):
            server.post(f"/wait/{text}")
        server.writes("one began", "two began")
        server.stops()
    assert [task["kinds"] for task in record(tmp_path, "wait_until_told")] == [["released"], ["released"]]


@pytest.mark.parametrize("task", ["wait", "wait_in_thread"])
def test_the_first_ctrl_c_says_that_a_second_one_ends_at_once_and_it_does(tmp_path: Path, task: str) -> None:
    write_application(tmp_path, "Afterwards(app, grace=600)")
    with uvicorn(tmp_path) as server:
        server.post(f"/{task}/task")
        server.writes("task began")
        server.signal(signal.SIGINT)
        server.says("draining, 1 task has 600 s to end; a second Ctrl-C releases running")
        assert server.process.poll() is None
        server.signal(signal.SIGINT)
        server.ends()
    [ended] = record(tmp_path, "wait_until_told") or record(tmp_path, "wait_in_thread_until_told")
    assert (ended["attempt"], ended["failed"]) == (1, 0)
