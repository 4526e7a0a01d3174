"""Real servers: however they were started their functions are found, and none of their processes outlives them."""

import os
import signal
import sys
from pathlib import Path

import pytest

from face.processes import Program, eventually, record, uvicorn
from isolation.looking import lives, pid_in

APPLICATION = """
import os, re, subprocess, time
from pathlib import Path
from fastapi import FastAPI
from afterwards import Afterwards, BackgroundTasks, task

app = FastAPI()
tasks = Afterwards(app)

def wait(file):
    Path(file).write_text(f"{os.getpid()}\\n")
    while not Path("go").exists():
        time.sleep(0.01)

def hold_the_gil(file):
    Path(file).write_text(f"{os.getpid()}\\n")
    re.match(r"(a+)+$", "a" * 60 + "b")

def leave(file):
    Path(file).write_text(f"{os.getpid()}\\n")

@task
async def enqueued_there() -> None:
    Path("enqueued").write_text(f"{os.getpid()}\\n")

def enqueue(file):
    enqueued_there.enqueue_sync()

def start_a_program(file):
    program = subprocess.Popen(["sleep", "600"])
    Path(file).write_text(f"{program.pid}\\n")
    program.wait()

def start_one_and_hold_the_gil(file):
    program = subprocess.Popen(["sleep", "600"])
    Path(file).write_text(f"{program.pid}\\n")
    re.match(r"(a+)+$", "a" * 60 + "b")

DO = {
    function.__name__: function
    for function in (wait, hold_the_gil, leave, enqueue, start_a_program, start_one_and_hold_the_gil)
}

@task(run_in="process", retries=0)
def isolated(what: str, file: str) -> None:
    DO[what](file)

@app.post("/{what}/{file}")
async def add(what: str, file: str, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(isolated, what, file)
"""

GUARDED = """
if __name__ == "__main__":
    import uvicorn
    uvicorn.run({app}, port=0)
"""

UNGUARDED = """
import uvicorn
uvicorn.run(app, port=0)
"""


def runs(server: Program) -> None:
    """Have a function run in a process of its own, and the server end well."""
    server.post("/leave/pid")
    pid = eventually(lambda: pid_in(server.folder / "pid"))
    assert pid != server.process.pid
    eventually(lambda: record(server.folder, "isolated")[0]["state"] == "succeeded")
    server.stops()
    assert not lives(pid)


@pytest.mark.parametrize("app", ["app", '"main:app"'])
def test_a_program_that_serves_itself(tmp_path: Path, app: str) -> None:
    (tmp_path / "main.py").write_text(APPLICATION + GUARDED.format(app=app))
    with Program([sys.executable, "main.py"], tmp_path) as server:
        runs(server)


def test_a_module_that_serves_itself(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "main.py").write_text(APPLICATION + GUARDED.format(app="app"))
    with Program([sys.executable, "-m", "package.main"], tmp_path) as server:
        runs(server)


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"], ["--reload"]])
def test_uvicorn(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "main.py").write_text(APPLICATION)
    with uvicorn(tmp_path, *arguments) as server:
        runs(server)


def test_the_script_uvicorn(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APPLICATION)
    script = str(Path(sys.executable).with_name("uvicorn"))
    with Program([script, "main:app", "--port", "0"], tmp_path) as server:
        runs(server)


def test_a_program_that_serves_when_it_is_imported_is_told_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APPLICATION + UNGUARDED)
    with Program([sys.executable, "main.py"], tmp_path) as server:
        server.post("/leave/pid")
        server.says('put the call that starts it, such as uvicorn.run.* under `if __name__ == "__main__":`')
        eventually(lambda: record(tmp_path, "isolated")[0]["state"] == "failed")
        assert record(tmp_path, "isolated")[0]["kinds"] == ["refused"]


def test_a_task_may_be_enqueued_there(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APPLICATION)
    with uvicorn(tmp_path) as server:
        server.post("/enqueue/pid")
        assert eventually(lambda: pid_in(tmp_path / "enqueued")) == server.process.pid
        server.stops()


@pytest.mark.parametrize("what", ["wait", "leave", "hold_the_gil"])
def test_no_process_survives_a_server_that_is_killed(tmp_path: Path, what: str) -> None:
    if what == "hold_the_gil" and sys.platform != "linux":
        pytest.skip("elsewhere it ends when it lets the GIL go")
    (tmp_path / "main.py").write_text(APPLICATION)
    with uvicorn(tmp_path) as server:
        server.post(f"/{what}/pid")
        pid = eventually(lambda: pid_in(tmp_path / "pid"))
        server.signal(signal.SIGKILL)
        eventually(lambda: not lives(pid))


@pytest.mark.skipif(sys.platform == "win32", reason="it has no groups of processes")
@pytest.mark.parametrize("what", ["start_a_program", "start_one_and_hold_the_gil"])
def test_no_program_of_a_process_survives_a_server_that_is_killed(tmp_path: Path, what: str) -> None:
    if what == "start_one_and_hold_the_gil" and sys.platform != "linux":
        pytest.skip("elsewhere it ends when it lets the GIL go")
    (tmp_path / "main.py").write_text(APPLICATION)
    with uvicorn(tmp_path) as server:
        server.post(f"/{what}/pid")
        pid = eventually(lambda: pid_in(tmp_path / "pid"))
        assert lives(pid)
        server.signal(signal.SIGKILL)
        eventually(lambda: not lives(pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_lets_the_function_end(tmp_path: Path, number: int) -> None:
    """As Ctrl-C in a terminal, and as a service manager that ends all of a service's processes."""
    (tmp_path / "main.py").write_text(APPLICATION)
    with uvicorn(tmp_path) as server:
        server.post("/wait/pid")
        pid = eventually(lambda: pid_in(tmp_path / "pid"))
        os.killpg(server.process.pid, number)
        server.says("draining")
        (tmp_path / "go").touch()
        server.ends()
        assert not lives(pid)
    assert record(tmp_path, "isolated")[0]["state"] == "succeeded"


ABANDONED = """
import asyncio, sys

async def serve() -> None:
    context = app.router.lifespan_context(app)
    await context.__aenter__()
    handle = await isolated.enqueue("leave", "pid")
    await handle.result(timeout=20)
    print("left without an end", flush=True)
    asyncio.get_running_loop().stop()

if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    task = loop.create_task(serve())
    loop.run_forever()
    sys.exit(0)
"""


def test_an_interpreter_that_ends_without_its_worker_waits_for_no_idle_process(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APPLICATION + ABANDONED)
    with Program([sys.executable, "main.py"], tmp_path) as program:
        program.says("left without an end")
        pid = pid_in(tmp_path / "pid")
        assert pid
        program.ends(within=10)
        assert not lives(pid)


def test_a_second_signal_ends_what_runs(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APPLICATION)
    with uvicorn(tmp_path) as server:
        server.post("/hold_the_gil/pid")
        pid = eventually(lambda: pid_in(tmp_path / "pid"))
        server.signal(signal.SIGINT)
        server.says("draining")
        server.signal(signal.SIGINT)
        server.ends(within=15)
        assert not lives(pid)
