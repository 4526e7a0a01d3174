"""Real servers, old and new code side by side, some of them killed."""

import asyncio
import signal
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from afterwards.core.routing import LiveWorker, Unroutable
from afterwards.engines.sqlite import SQLiteEngine
from afterwards.worker.registration import find_unroutable
from face.processes import eventually, output, record, uvicorn, write_application

OLD = """
    @task
    async def greet(name: str) -> None:
        write(f"old greets {name}")

    @app.post("/later/{name}")
    async def later(name: str) -> None:
        await greet.options(delay=3600).enqueue(name)

    tasks = Afterwards(app)
    """
NEW = """
    tasks = Afterwards(app)

    @app.get("/unroutable")
    async def unroutable() -> list[dict[str, str | int]]:
        found = await tasks.unroutable()
        return [{"name": one.name, "count": one.count, "reason": one.reason} for one in found]
    """
ELEVEN_MINUTES = 11 * 60 * 1_000_000


def live(folder: Path, since: timedelta) -> list[LiveWorker]:
    async def ask() -> list[LiveWorker]:
        async with SQLiteEngine(folder / "afterwards.db") as engine:
            return [worker for worker in await engine.workers(since) if not worker.has_left]

    return asyncio.run(ask())


def unroutable(folder: Path) -> list[Unroutable]:
    async def ask() -> list[Unroutable]:
        async with SQLiteEngine(folder / "afterwards.db") as engine:
            return await find_unroutable(engine)

    return asyncio.run(ask())


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "afterwards.db", timeout=20)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def two(tmp_path: Path) -> tuple[Path, Path, dict[str, Any]]:
    """The folders of the old code and of the new one, and where both keep their tasks."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, source in ((old, OLD), (new, NEW)):
        folder.mkdir()
        write_application(folder, source)
    return old, new, {"AFTERWARDS_URL": f"sqlite:///{tmp_path / 'afterwards.db'}"}


def test_a_server_that_ends_is_listed_no_longer_and_a_killed_one_for_a_while(tmp_path: Path) -> None:
    old, new, url = two(tmp_path)
    with uvicorn(old, **url) as killed, uvicorn(new, **url) as stopped:
        assert killed.url and stopped.url
        eventually(lambda: len(live(tmp_path, timedelta(minutes=1))) == 2)
        by_pid = {one.pid: one for one in live(tmp_path, timedelta(minutes=1))}
        assert by_pid.keys() == {str(killed.process.pid), str(stopped.process.pid)}
        assert "greet" in by_pid[str(killed.process.pid)].names
        assert "greet" not in by_pid[str(stopped.process.pid)].names
        stopped.stops()
        assert [one.pid for one in live(tmp_path, timedelta(minutes=1))] == [str(killed.process.pid)]
        killed.signal(signal.SIGKILL)
        killed.ends()
    assert len(live(tmp_path, timedelta(minutes=1))) == 1
    eventually(lambda: live(tmp_path, timedelta(seconds=2)) == [])


def test_in_a_rolling_deploy_the_old_servers_tasks_wait_unroutable_until_somebody_knows_them(tmp_path: Path) -> None:
    old, new, url = two(tmp_path)
    with uvicorn(new, **url) as server:
        with uvicorn(old, **url) as before:
            before.post("/later/ada")
            before.stops()
        change(tmp_path, "UPDATE afterwards_tasks SET run_at = 0 WHERE name = 'greet'")
        server.post("/note/still here")
        server.writes("still here")
        assert server.get("/unroutable").json() == []  # one that knows it lived a moment ago
        left = f"UPDATE afterwards_workers SET seen_at = seen_at - {ELEVEN_MINUTES} WHERE has_left"
        change(tmp_path, left)
        reason = "no live worker knows it"
        assert server.get("/unroutable").json() == [{"name": "greet", "count": 1, "reason": reason}]
        [waiting] = record(tmp_path, "greet")
        assert (waiting["attempt"], waiting["failed"], waiting["kinds"]) == (0, 0, [])
        with uvicorn(old, **url) as again:
            again.writes("old greets ada")
        assert server.get("/unroutable").json() == []


def test_where_every_server_is_killed_what_is_long_due_is_unroutable(tmp_path: Path) -> None:
    old, _, url = two(tmp_path)
    with uvicorn(old, **url) as server:
        server.post("/later/ada")
        server.signal(signal.SIGKILL)
        server.ends()
    change(
        tmp_path,
        "UPDATE afterwards_tasks SET run_at = 0",
        f"UPDATE afterwards_workers SET seen_at = seen_at - {ELEVEN_MINUTES}",
    )
    [found] = unroutable(tmp_path)
    assert (found.name, found.count, found.reason) == ("greet", 1, "no worker lives")


def test_the_new_code_checks_what_the_old_one_stored_while_that_still_runs(tmp_path: Path) -> None:
    old, new, url = two(tmp_path)
    program = "import asyncio, main\nfor problem in asyncio.run(main.tasks.check()): print(problem)\n"
    with uvicorn(old, **url) as server:
        server.post("/later/hunter2")
        said = output(program, new, **url)
        assert said.startswith("greet, name: no task function has this name or alias (1 task, ")
        write_application(new, "@task\nasync def greet(user: str) -> None: ...", NEW)
        said = output(program, new, **url)
        assert said.startswith('greet, arguments: parameter "user": it has no default, and is not stored (1 task, ')
        assert "hunter2" not in said
        write_application(new, "@task\nasync def greet(name: str) -> None: ...", NEW)
        assert output(program, new, **url) == ""
        assert [one["state"] for one in record(tmp_path, "greet")] == ["scheduled"]
