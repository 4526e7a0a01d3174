"""``afterwards worker``, run as operators run it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from afterwards.cli.errors import ExitCode
from face.processes import ENVIRONMENT, TIMEOUT, Program, eventually, output, record, uvicorn, write_application
from servers.postgres import free_port

STORE = """
import asyncio
import main

async def store() -> None:
    for text in "abc":
        await main.{function}.enqueue(text)

asyncio.run(store())
"""


FAILING_LIFESPAN = """
import json
from contextlib import asynccontextmanager
from fastapi import FastAPI
from afterwards import Afterwards

@asynccontextmanager
async def lifespan(app):
    {before}
    yield
    {after}

app = FastAPI(lifespan=lifespan)
Afterwards(app)
"""


HTTP = httpx.Client(verify=False, timeout=TIMEOUT)  # one for all: to read the certificates takes 20 ms


@pytest.fixture
def application(tmp_path: Path) -> Path:
    write_application(tmp_path, "Afterwards(app)")
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "afterwards", "worker", *arguments]


def worker(folder: Path, *arguments: str, **environment: str) -> Program:
    return Program(command(*arguments), folder, **environment)


def store(folder: Path, function: str = "note") -> None:
    output(STORE.format(function=function), folder)


def ran(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        command(*arguments), cwd=folder, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=60
    )


def diary(folder: Path) -> list[str]:
    return sorted((folder / "diary.txt").read_text().split())


def test_a_burst_runs_all_there_is_and_what_follows_it(tmp_path: Path) -> None:
    write_application(
        tmp_path, "Afterwards(app)", "@task\nasync def both(text: str) -> None:\n    await note.enqueue(text)"
    )
    store(tmp_path, "both")
    assert ran(tmp_path, "--burst").returncode == ExitCode.DONE
    assert diary(tmp_path) == ["a", "b", "c"]


def test_the_installed_command_is_the_same(application: Path) -> None:
    store(application)
    installed = Path(sys.executable).with_name("afterwards")
    assert subprocess.run([installed, "worker", "main:app", "--burst"], cwd=application, timeout=60).returncode == 0
    assert diary(application) == ["a", "b", "c"]


def test_only_the_named_queues_are_served(tmp_path: Path) -> None:
    write_application(
        tmp_path, "Afterwards(app)", '@task(queue="high")\nasync def first(text: str) -> None:\n    write(text)'
    )
    store(tmp_path)
    store(tmp_path, "first")
    assert ran(tmp_path, "--burst", "-q", "high").returncode == ExitCode.DONE
    assert diary(tmp_path) == ["a", "b", "c"]
    assert [one["state"] for one in record(tmp_path, "note")] == ["queued"] * 3
    assert ran(tmp_path, "--burst", "-q", "other,default").returncode == ExitCode.DONE
    assert len(diary(tmp_path)) == 6


def test_tasks_find_what_the_lifespan_has_made(tmp_path: Path) -> None:
    write_application(
        tmp_path,
        """
        from contextlib import asynccontextmanager
        from typing import Annotated
        from fastapi import Depends, Request

        @asynccontextmanager
        async def lifespan(app):
            app.state.greeting = "hello"
            yield
            write("left")

        def greeting(request: Request) -> str:
            return request.app.state.greeting

        @task
        async def greet(name: str, word: Annotated[str, Depends(greeting)]) -> None:
            write(f"{word}-{name}")

        app = FastAPI(lifespan=lifespan)
        Afterwards(app)
        """,
    )
    store(tmp_path, "greet")
    assert ran(tmp_path, "--burst").returncode == ExitCode.DONE
    assert diary(tmp_path) == ["hello-a", "hello-b", "hello-c", "left"]


def test_a_server_only_stores_and_a_worker_only_works(application: Path) -> None:
    with uvicorn(application, AFTERWARDS_WORKER="off") as server:
        server.post("/note/hello")
        assert [one["state"] for one in record(application, "note")] == ["queued"]
        with worker(application, "main:app", AFTERWARDS_WORKER="off") as working:
            working.writes("hello")
            server.post("/note/again")
            working.writes("again")
            assert "Uvicorn" not in working.output


def test_a_signal_lets_what_runs_end(application: Path) -> None:
    store(application, "wait_until_told")
    with worker(application, "-c", "1") as working:
        working.writes("a began")
        working.signal(signal.SIGTERM)
        (application / "go").touch()
        assert working.ends() == ExitCode.DONE
        assert diary(application) == ["a", "a", "began", "ended"]
    assert [one["state"] for one in record(application, "wait_until_told")] == ["succeeded", "queued", "queued"]


@pytest.mark.parametrize("grace", [[], ["--grace", "0.1"]])
def test_what_does_not_end_is_given_back(application: Path, grace: list[str]) -> None:
    store(application, "wait_until_told")
    with worker(application, *grace) as working:
        working.writes("a began", "b began", "c began")
        working.signal(signal.SIGINT)
        if not grace:
            working.says("draining|waiting|Ctrl-C|again")
            working.signal(signal.SIGINT)
        assert working.ends() == ExitCode.DONE
    tasks = record(application, "wait_until_told")
    assert [(one["state"], one["failed"], one["crashed"]) for one in tasks] == [("queued", 0, 0)] * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_one_signal_to_all_processes_lets_what_runs_end(application: Path, number: int) -> None:
    """As systemd sends it to all processes of a service; the supervisor passes SIGTERM on."""
    store(application, "wait_until_told")
    with worker(application, "--processes", "2", "-c", "3") as working:
        working.writes("a began", "b began", "c began")
        all_processes = [working.process.pid, *children(working.process.pid)]
        if number == signal.SIGTERM:
            for pid in all_processes:
                os.kill(pid, number)
        else:
            os.killpg(working.process.pid, number)  # a terminal: to its group
        working.says("draining")
        (application / "go").touch()
        assert working.ends() == ExitCode.DONE
    assert [one["state"] for one in record(application, "wait_until_told")] == ["succeeded"] * 3


def test_a_process_that_dies_is_replaced_and_all_end_together(application: Path) -> None:
    with worker(application, "--processes", "2") as working:
        first = eventually(lambda: len(found := children(working.process.pid)) == 2 and found)
        eventually(lambda: working.output.count("worker here") == 2)
        os.kill(first[0], signal.SIGKILL)
        working.says("was killed by SIGKILL; a new one starts")
        second = eventually(lambda: len(found := children(working.process.pid)) == 2 and found != first and found)
        store(application)
        working.writes("a", "b", "c")
        working.signal(signal.SIGTERM)
        assert working.ends() == ExitCode.DONE
        assert not any(map(lives, {*first, *second}))


def test_a_process_that_is_told_to_end_alone_is_replaced(application: Path) -> None:
    with worker(application, "--processes", "2") as working:
        eventually(lambda: working.output.count("worker here") == 2)
        for told in children(working.process.pid):
            os.kill(told, signal.SIGTERM)
        eventually(lambda: working.output.count("ended with exit code 0; a new one starts") == 2)
        eventually(lambda: working.output.count("worker here") == 4)
        store(application)
        working.writes("a", "b", "c")
        working.stops()


def test_processes_end_when_their_supervisor_is_killed(application: Path) -> None:
    with worker(application, "--processes", "2") as working:
        eventually(lambda: working.output.count("worker here") == 2)
        found = children(working.process.pid)
        working.process.kill()
        working.process.wait()
        eventually(lambda: not any(map(lives, found)))


def test_a_burst_of_several_processes_ends(application: Path) -> None:
    store(application)
    assert ran(application, "--processes", "2", "--burst").returncode == ExitCode.DONE
    assert diary(application) == ["a", "b", "c"]


def test_a_change_of_the_code_starts_it_again(application: Path) -> None:
    with worker(application, "--reload") as working:
        working.says("worker here")
        write_application(application, "Afterwards(app)", "write('changed')")
        working.says("main.py changed")
        working.writes("changed")
        eventually(lambda: working.output.count("worker here") == 2)
        store(application)
        working.writes("a", "b", "c")
        working.stops()


def test_a_change_that_cannot_be_loaded_is_told_and_the_next_one_is_waited_for(application: Path) -> None:
    with worker(application, "--reload") as working:
        working.says("worker here")
        changes = ("def (", "import nothing_of_this_name", "del app", "Afterwards(app, concurrency=0)")
        for number, wrong in enumerate(changes, 1):
            write_application(application, "Afterwards(app)", wrong)
            eventually(lambda n=number: working.output.count("a new one starts after the next change") == n)  # type: ignore[misc]
            assert sum(line.startswith("afterwards: ") for line in working.output.splitlines()) == number
        write_application(application, "Afterwards(app)", "write('mended')")
        working.writes("mended")
        store(application)
        working.writes("a", "b", "c")
        working.stops()


def test_what_cannot_be_loaded_at_first_is_loaded_when_it_was_mended(application: Path) -> None:
    (application / "main.py").rename(application / "later")
    with worker(application, "main:app", "--reload") as working:
        working.says("a new one starts after the next change")
        (application / "later").rename(application / "main.py")
        working.says("worker here")
        working.stops()


def test_a_signal_ends_a_wait_for_a_change(application: Path) -> None:
    (application / "main.py").write_text("def (")
    with worker(application, "--reload") as working:
        working.says("a new one starts after the next change")
        working.stops()


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]])
def test_probes_are_answered(application: Path, processes: list[str]) -> None:
    port = free_port()
    with worker(application, "--health-port", str(port), "--health-host", "127.0.0.1", *processes) as working:
        working.says("worker here")
        ready = eventually(lambda: (answer := ask(port, "/ready")) and answer.status_code == 200 and answer)
        assert "the store answers" in ready.json()["detail"]
        assert ask(port, "/live").status_code == 200
        assert ask(port, "/other").status_code == 404
        assert httpx.post(f"http://127.0.0.1:{port}/live").status_code == 404
        working.stops()


def test_a_process_that_hangs_is_not_alive(application: Path) -> None:
    port = free_port()
    impatient = "from afterwards.cli import main, supervisor; supervisor.SILENT_AFTER = 3.0; main.main()"
    arguments = ["worker", "--health-port", str(port), "--processes", "2"]
    with Program([sys.executable, "-c", impatient, *arguments], application) as working:
        eventually(lambda: (answer := ask(port, "/ready")) and answer.status_code == 200)
        [hanging, _] = children(working.process.pid)
        os.kill(hanging, signal.SIGSTOP)
        eventually(lambda: ask(port, "/live").status_code == 503)
        assert re.search(r"process \d: silent for", ask(port, "/live").json()["detail"])
        os.kill(hanging, signal.SIGCONT)
        eventually(lambda: ask(port, "/live").status_code == 200)


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "said"),
    [
        (["main:nothing"], {}, ExitCode.USAGE, "'main' has no attribute 'nothing'; did you mean main:app?"),
        (["-q", ","], {}, ExitCode.USAGE, "names no queue"),
        (["-q", "a b"], {}, ExitCode.USAGE, "a b"),
        (["--reload", "--burst"], {}, ExitCode.USAGE, "exclude each other"),
        (["--grace", "inf"], {}, ExitCode.USAGE, "--grace inf is no span of time"),
        (["--grace", "nan"], {}, ExitCode.USAGE, "--grace"),
        (["--grace", "1e300", "--processes", "2"], {}, ExitCode.USAGE, "--grace 1e+300 is no span of time"),
        ([], {"AFTERWARDS_URL": "memory://"}, ExitCode.USAGE, "memory:// are visible to one process"),
        ([], {"AFTERWARDS_URL": "sqlite:///missing/tasks.db"}, ExitCode.UNREACHABLE, "missing"),
        ([], {"AFTERWARDS_URL": "mysql://localhost/shop"}, ExitCode.USAGE, 'no engine for "mysql"'),
        ([], {"AFTERWARDS_URL": "sqlite:tasks.db"}, ExitCode.USAGE, "give sqlite:///tasks.db"),
        (["--health-port", "1"], {}, ExitCode.FAILED, "--health-port 1:"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(
    application: Path, arguments: list[str], environment: dict[str, str], code: ExitCode, said: str
) -> None:
    if "--health-port" in arguments:
        with closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            ended = ran(application, "--health-port", port, "--health-host", "127.0.0.1")
            said = f"--health-port {port}:"
    else:
        ended = ran(application, *arguments, **environment)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("afterwards: ")]
    assert (ended.returncode, len(lines)) == (code, 1), ended.stderr
    assert said in lines[0]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("doing", ["starting", "ending"])
def test_a_lifespan_that_fails_is_named_with_the_application_s_own_line(tmp_path: Path, doing: str) -> None:
    connect, nothing = 'json.loads("{{")', "pass"
    before, after = (connect, nothing) if doing == "starting" else (nothing, connect)
    (tmp_path / "main.py").write_text(FAILING_LIFESPAN.format(before=before, after=after))
    ended = ran(tmp_path, "--burst")
    line = 9 if doing == "starting" else 11
    assert ended.returncode == ExitCode.FAILED
    assert f"{doing} the application failed: its lifespan raised JSONDecodeError: " in ended.stderr
    assert f"({tmp_path / 'main.py'}, line {line})" in ended.stderr
    assert "report this line" not in ended.stderr


def test_an_application_without_an_installation_is_refused(tmp_path: Path) -> None:
    write_application(tmp_path)
    ended = ran(tmp_path)
    assert ended.returncode == ExitCode.USAGE
    assert "write Afterwards(app) where the application is made" in ended.stderr


def ask(port: int, path: str) -> httpx.Response:
    time.sleep(0.1)  # tests ask until the answer is the right one
    try:
        return HTTP.get(f"http://127.0.0.1:{port}{path}")
    except httpx.TransportError:
        return httpx.Response(599)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return sorted(map(int, found.read_text().split()))


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
