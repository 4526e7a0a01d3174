"""An application and a fleet of processes, over an SQLite file."""

import signal
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from afterwards import State
from afterwards.core.task import FailureKind, Lease
from dispatch.processes import ended, fleet, only, put, sent, server, stored, write_main
from dispatch.spool import Spool
from face.processes import eventually

STATES = {State.SUCCEEDED}


def test_tasks_run_in_the_fleet_in_the_order_of_their_request(tmp_path: Path) -> None:
    write_main(tmp_path)
    with server(tmp_path) as web, fleet(tmp_path) as first, fleet(tmp_path) as second:
        web.says("dispatcher here, tasks run on the fleet of Spool")
        first.says("worker of the fleet of Spool here, 1 at a time")
        for _ in range(5):
            web.post("/chain")
        eventually(lambda: len(web.diary()) == 15)
        eventually(lambda: {task.state for task in stored(tmp_path)} == STATES)
        assert second.process.poll() is None
    for tasks in (stored(tmp_path)[at : at + 3] for at in range(0, 15, 3)):
        assert all(before.finished_at <= after.started_at for before, after in pairwise(tasks))
    assert sorted(web.diary()) == sorted(["first", "second", "third"] * 5)
    assert len(sent(tmp_path)) == 15


def test_the_web_process_leases_nothing(tmp_path: Path) -> None:
    write_main(tmp_path)
    with server(tmp_path) as web:
        web.post("/note/one")
        eventually(lambda: sent(tmp_path))
        [task] = stored(tmp_path)
    assert (task.state, task.attempt, task.worker) == (State.QUEUED, 0, None)
    assert web.diary() == []


def test_a_web_process_without_a_worker_only_stores(tmp_path: Path) -> None:
    write_main(tmp_path)
    with server(tmp_path, AFTERWARDS_WORKER="off") as web, fleet(tmp_path, AFTERWARDS_WORKER="off") as process:
        web.says("no worker in this process")
        web.post("/note/one")
        assert only(tmp_path, lambda task: task.state is State.QUEUED)
        assert sent(tmp_path) == []
        with server(tmp_path) as other:
            other.writes("one")
        assert process.process.poll() is None


def test_two_web_processes_send_each_task_once(tmp_path: Path) -> None:
    write_main(tmp_path)
    with server(tmp_path) as one, server(tmp_path) as other, fleet(tmp_path, "--slots", "4"):
        for number in range(40):
            (one if number % 2 else other).post(f"/note/{number}")
        eventually(lambda: len(one.diary()) == 40)
    assert len({id for id, *_ in sent(tmp_path)}) == len(sent(tmp_path)) == 40


def test_delays_and_retries_are_ours(tmp_path: Path) -> None:
    write_main(
        tmp_path,
        """
        @task(retries=2)
        async def flaky(text: str) -> None:
            write(text)
            if open("diary.txt").read().count(text) < 3:
                raise RetryAfter(0.1)

        @app.post("/both")
        async def both() -> None:
            await note.options(delay=1).enqueue("delayed")
            await flaky.enqueue("flaky")
        """,
    )
    with server(tmp_path) as web, fleet(tmp_path):
        web.post("/both")
        eventually(lambda: all(ended(task) for task in stored(tmp_path)))
    delayed, flaky = stored(tmp_path)
    assert (delayed.state, delayed.attempt) == (State.SUCCEEDED, 1)
    assert delayed.started_at >= delayed.created_at + timedelta(seconds=1)
    assert (flaky.state, flaky.attempt, flaky.failed) == (State.SUCCEEDED, 3, 2)
    assert [attempt for id, attempt, *_ in sent(tmp_path) if id == flaky.id] == ["1", "2", "3"]


def test_an_expired_task_is_cancelled_though_the_fleet_is_away(tmp_path: Path) -> None:
    write_main(
        tmp_path,
        """
        @app.post("/short")
        async def short(background: BackgroundTasks) -> None:
            await note.options(expires=0.5).enqueue("expired")
        """,
    )
    with server(tmp_path) as web:
        web.post("/short")
        task = only(tmp_path, ended)
        assert task.state is State.CANCELLED
        Spool(folder=f"{tmp_path}/spool").put(Lease(task.id, 1), task.queue)  # its message may be left
        with fleet(tmp_path) as process:
            process.says("run returned False")
    assert web.diary() == []


def test_limits_hold_across_processes(tmp_path: Path) -> None:
    write_main(
        tmp_path,
        """
        @task(max_concurrency=1)
        async def alone(text: str) -> None:
            os.mkdir("alone")
            await asyncio.sleep(0.02)
            os.rmdir("alone")
            write(text)

        @app.post("/alone")
        async def add_alone() -> None:
            for number in range(10):
                await alone.enqueue(str(number))
        """,
    )
    with server(tmp_path) as web, fleet(tmp_path, "--slots", "4"), fleet(tmp_path, "--slots", "4"):
        web.post("/alone")
        eventually(lambda: [task.state for task in stored(tmp_path)] == [State.SUCCEEDED] * 10)
    assert [task.attempt for task in stored(tmp_path)] == [1] * 10
    assert web.diary() == [f"{number}" for number in range(10)]


def test_dependencies_files_progress_and_the_lifespan_are_there(tmp_path: Path) -> None:
    write_main(
        tmp_path,
        """
        from contextlib import asynccontextmanager
        from io import BytesIO
        from fastapi import APIRouter

        @asynccontextmanager
        async def lifespan(app: FastAPI):
            where = "server" if "uvicorn" in sys.argv[0] else "fleet"
            write(f"begins in {where}")
            yield {"greeting": f"hello from the {where}"}
            write(f"ends in {where}")

        app.include_router(APIRouter(lifespan=lifespan))

        def greeting(request: Request) -> str:
            return request.state.greeting

        @task
        async def read(file: UploadFile, said: Annotated[str, Depends(greeting)] = injected()) -> str:
            for _ in progress([1, 2], desc="reading"):
                pass
            return f"{said}: {(await file.read()).decode()}"

        @app.post("/file")
        async def file() -> None:
            await read.enqueue(UploadFile(BytesIO(b"content"), filename="f"))
        """,
    )
    with server(tmp_path) as web, fleet(tmp_path) as process:
        web.post("/file")
        task = only(tmp_path, ended)
        process.stops()
    assert (task.state, task.result) == (State.SUCCEEDED, '"hello from the fleet: content"'), process.output
    assert task.progress is not None
    assert (task.progress.description, task.progress.done) == ("reading", 2)
    assert {"begins in server", "begins in fleet", "ends in fleet"} <= set(web.diary())


def test_a_running_task_is_cancelled(tmp_path: Path) -> None:
    write_main(
        tmp_path,
        """
        @app.post("/cancel/{id}")
        async def cancel(id: str) -> None:
            await (await tasks.get(id)).cancel()

        @app.post("/long")
        async def long() -> str:
            return (await wait_until_told.enqueue("long")).id
        """,
        options="lease=3",
    )
    with server(tmp_path) as web, fleet(tmp_path):
        id = web.post("/long").json()
        web.writes("long began")
        web.post(f"/cancel/{id}")
        assert only(tmp_path, ended).state is State.CANCELLED


def test_schedules_fire_while_the_application_serves(tmp_path: Path) -> None:
    write_main(
        tmp_path,
        """
        @task(every=1)
        async def tick() -> None:
            write("tick")
        """,
    )
    with server(tmp_path) as web, server(tmp_path), fleet(tmp_path):
        eventually(lambda: len(web.diary()) >= 2)


def test_what_the_broker_loses_is_sent_again(tmp_path: Path) -> None:
    write_main(tmp_path, spool="again_after=1")
    loses = put(tmp_path, "loses")
    with server(tmp_path) as web, fleet(tmp_path):
        web.post("/note/one")
        eventually(lambda: sent(tmp_path))
        loses.unlink()
        web.writes("one")
        assert only(tmp_path, ended).attempt == 1
    assert {(id, attempt) for id, attempt, *_ in sent(tmp_path)} == {(stored(tmp_path)[0].id, "1")}


def test_what_a_killed_web_process_could_not_send_is_sent_by_another(tmp_path: Path) -> None:
    write_main(tmp_path, spool="again_after=1")
    away = put(tmp_path, "away")
    with server(tmp_path) as web:
        web.post("/note/one")
        web.says("could not send")
        web.signal(signal.SIGKILL)
        web.ends()
    away.unlink()
    with server(tmp_path) as web, fleet(tmp_path):
        web.writes("one")


def test_a_function_that_runs_in_a_process_of_its_own_does_so_in_the_fleet(tmp_path: Path) -> None:
    write_main(
        tmp_path,
        """
        @task(run_in="process")
        def apart(text: str) -> int:
            write(text)
            return os.getppid()

        @app.post("/apart")
        async def add_apart() -> None:
            await apart.enqueue("apart")
        """,
    )
    with server(tmp_path) as web, fleet(tmp_path) as process:
        web.post("/apart")
        task = only(tmp_path, ended)
    assert (task.state, task.result) == (State.SUCCEEDED, f"{process.process.pid}")


def test_requests_are_answered_while_the_broker_is_away(tmp_path: Path) -> None:
    write_main(tmp_path)
    away = put(tmp_path, "away")
    with server(tmp_path) as web, fleet(tmp_path):
        for number in range(5):
            web.post(f"/note/{number}")
        web.says("Spool could not send tasks: the folder is away")
        assert web.get("/healthz").json() == {"healthy": True, "detail": "the dispatcher runs"}
        away.unlink()
        web.writes(*map(str, range(5)))
        web.says("Spool sends tasks again")
    assert web.diary() == [f"{number}" for number in range(5)]


def test_a_killed_process_of_the_fleet_is_a_crash_like_any_other(tmp_path: Path) -> None:
    write_main(tmp_path)
    with server(tmp_path) as web:
        with fleet(tmp_path) as killed:
            web.post("/wait/one")
            web.writes("one began")
            killed.signal(signal.SIGKILL)
            killed.ends()
        (tmp_path / "go").touch()
        with fleet(tmp_path):
            task = only(tmp_path, ended)
    assert (task.state, task.attempt) == (State.SUCCEEDED, 2)
    assert [failure.kind for failure in task.failures] == [FailureKind.CRASHED]


def test_a_process_of_the_fleet_that_is_told_to_end_gives_back_uncharged(tmp_path: Path) -> None:
    write_main(tmp_path, options="grace=0.1")
    with server(tmp_path) as web:
        with fleet(tmp_path) as told:
            web.post("/wait/one")
            web.writes("one began")
            told.signal(signal.SIGTERM)
            told.says("the fleet's process has ended")
            told.says("run returned True")
            assert told.ends(60) == 0
        (tmp_path / "go").touch()
        with fleet(tmp_path):
            task = only(tmp_path, ended)
    assert (task.state, task.attempt, task.failed, task.crashed) == (State.SUCCEEDED, 2, 0, 0)


def test_what_is_paused_is_not_sent(tmp_path: Path) -> None:
    write_main(
        tmp_path,
        """
        @app.post("/pause")
        async def pause() -> None:
            await tasks.pause(queue="mail")

        @app.post("/resume")
        async def resume() -> None:
            await tasks.resume(queue="mail")

        @app.post("/mail")
        async def add_mail() -> None:
            await mail.enqueue("mail")
        """,
    )
    with server(tmp_path) as web, fleet(tmp_path):
        web.post("/pause")
        web.post("/mail")
        web.post("/note/other")
        web.writes("other")
        assert [queue for _, _, queue, *_ in sent(tmp_path)] == ["default"]
        web.post("/resume")
        web.writes("mail")


def test_processes_of_the_fleet_serve_their_queues(tmp_path: Path) -> None:
    write_main(
        tmp_path,
        """
        @app.post("/mail")
        async def add_mail() -> None:
            await mail.enqueue("mail")

        @app.get("/workers")
        async def workers() -> list[object]:
            engine = await tasks.client.open()
            from afterwards.core.routing import ALIVE
            return [[one.slots, sorted(one.queues or ()), len(one.names)] for one in await engine.workers(ALIVE)]
        """,
    )
    with server(tmp_path) as web, fleet(tmp_path, "default", "--slots", "3"):
        web.post("/mail")
        web.post("/note/one")
        web.writes("one")
        assert web.diary() == ["one"]
        found = eventually(lambda: found if len(found := web.get("/workers").json()) == 2 else None)
        assert found is not None
        [dispatcher, worker] = sorted(found)
        assert dispatcher == [0, [], 0]
        assert worker[:2] == [3, ["default"]]
        assert worker[2] > 0
        with fleet(tmp_path, "mail"):
            web.writes("mail")


def test_a_dispatcher_that_is_stuck_is_seen_by_the_probe(tmp_path: Path) -> None:
    write_main(
        tmp_path,
        """
        from afterwards.core import verdict
        from datetime import timedelta
        verdict.SILENT_AFTER = timedelta(seconds=2)

        async def hang(dispatches) -> None:
            await asyncio.Event().wait()

        spool.send = hang
        """,
    )
    with server(tmp_path) as web:
        eventually(lambda: web.get("/healthz").status_code == 200)
        web.post("/note/one")
        unwell = eventually(lambda: answer if (answer := web.get("/healthz")).status_code == 503 else None)
        assert unwell is not None
        assert "the dispatcher has not sent tasks for" in unwell.json()["detail"]


def test_a_dispatcher_that_fails_refuses_tasks(tmp_path: Path) -> None:
    write_main(
        tmp_path,
        """
        async def fail(dispatches) -> None:
            raise ZeroDivisionError("a bug of the fleet's")

        spool.send = fail
        """,
    )
    with server(tmp_path) as web:
        web.post("/note/one")
        eventually(lambda: web.get("/healthz").status_code == 503)
        assert web.get("/healthz").json()["detail"] == "it cannot dispatch tasks"


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_web_process_that_dispatches_ends_when_it_is_told(tmp_path: Path, ending: int) -> None:
    write_main(tmp_path)
    put(tmp_path, "away")
    with server(tmp_path) as web:
        web.post("/note/one")
        web.says("could not send")
        web.signal(ending)
        web.ends(60)
    (tmp_path / "spool" / "away").unlink()
    with server(tmp_path) as web, fleet(tmp_path):
        web.writes("one")  # long before it would have been sent again
