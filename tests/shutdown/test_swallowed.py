"""A server ends although a task swallows every cancellation: nothing waits for it for ever."""

import signal
from pathlib import Path

import pytest

from face.processes import eventually, record, uvicorn, write_application

NEVER_ENDS = """
from contextlib import suppress

@task
async def swallow() -> None:
    write("swallow began")
    while not os.path.exists("go"):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.02)

@task(timeout=0.1)
async def swallow_the_timeout() -> None:
    await swallow.function()

@app.post("/swallow_the_timeout")
async def swallow_a_timeout(tasks: BackgroundTasks) -> None:
    tasks.add_task(swallow_the_timeout)

@app.post("/swallow")
async def swallow_it(tasks: BackgroundTasks) -> None:
    tasks.add_task(swallow)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_server_ends_although_a_task_swallows_every_cancellation(tmp_path: Path, number: int) -> None:
    write_application(tmp_path, NEVER_ENDS, "Afterwards(app, grace=0.2, lease=3)")
    with uvicorn(tmp_path) as server:
        server.post("/swallow")
        server.writes("swallow began")
        server.signal(number)
        server.ends()
    assert record(tmp_path, "swallow")[0]["state"] == "running", "it never stopped: it must not begin elsewhere yet"
    (tmp_path / "go").touch()
    with uvicorn(tmp_path):
        eventually(lambda: record(tmp_path, "swallow")[0]["state"] == "succeeded")
    assert record(tmp_path, "swallow")[0]["crashed"] == 0


def test_a_server_that_ends_by_itself_ends_although_a_task_swallows_every_cancellation(tmp_path: Path) -> None:
    write_application(tmp_path, NEVER_ENDS, "Afterwards(app, grace=0.2, lease=3)")
    with uvicorn(tmp_path, "--limit-max-requests", "1") as server:
        server.post("/swallow")
        server.ends()
    assert record(tmp_path, "swallow")[0]["crashed"] == 0


def test_a_server_ends_although_a_task_that_was_recorded_as_timed_out_goes_on(tmp_path: Path) -> None:
    write_application(tmp_path, NEVER_ENDS, "Afterwards(app, grace=0.2)")
    with uvicorn(tmp_path) as server:
        server.post("/swallow_the_timeout")
        server.says("does not stop")
        server.signal(signal.SIGINT)
        server.ends()
    assert record(tmp_path, "swallow_the_timeout")[0]["kinds"] == ["timed_out"]
