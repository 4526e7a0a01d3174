"""Two versions of the code on one file: what one of them cannot read waits for the other."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from afterwards.core.task import Task
from afterwards.engine import Query
from afterwards.engines.sqlite import SQLiteEngine
from face.processes import Program, eventually, output, uvicorn, write_application
from registration.test_deploys import change

OLD = """
    @task
    async def greet(name: str) -> None:
        write(f"old greets {name}")

    @app.post("/greet/{name}")
    async def add(name: str, tasks: BackgroundTasks) -> None:
        tasks.add_task(greet, name)

    tasks = Afterwards(app)
    """
NEW = {
    "a_parameter_is_missing": "user: str",
    "a_parameter_is_unknown": "",
    "a_parameter_is_new": "name: str, title: str",
    "a_value_is_of_another_type": "name: int",
    "a_value_no_longer_validates": "name: Annotated[str, AfterValidator(refuse)]",
    "a_validator_breaks": "name: Annotated[str, AfterValidator(break_down)]",
}
"""The new parameters of task functions that took a name, by what is wrong then."""

FUNCTION = """
@task
async def {function}({parameters}) -> None:
    write("{version} {function}")
"""
AROUND = """
    from typing import Annotated
    from pydantic import AfterValidator

    def refuse(name: str) -> str:
        raise ValueError(name)

    def break_down(name: str) -> str:
        raise KeyError(name)
    """


def stored(folder: Path, *names: str) -> list[Task]:
    async def ask() -> list[Task]:
        async with SQLiteEngine(folder / "afterwards.db") as engine:
            return await engine.find(Query(names=frozenset(names or ["greet"])))

    return asyncio.run(ask())


def versions(tmp_path: Path, *sources: tuple[str, ...]) -> tuple[list[Path], dict[str, Any]]:
    """A folder for each version of the code, and where all of them keep their tasks."""
    folders = [tmp_path / f"version{number}" for number in range(len(sources))]
    for folder, source in zip(folders, sources, strict=True):
        folder.mkdir()
        write_application(folder, *source)
    return folders, {"AFTERWARDS_URL": f"sqlite:///{tmp_path / 'afterwards.db'}"}


def is_set_aside(tmp_path: Path) -> Callable[[], str | None]:
    return lambda: stored(tmp_path)[0].set_aside


def store_and_stop(folder: Path, **url: Any) -> None:
    with uvicorn(folder, AFTERWARDS_WORKER="off", **url) as before:
        before.post("/greet/hunter2")
        before.stops()


def still_works(server: Program) -> None:
    server.post("/note/still here")
    server.writes("still here")


def test_what_a_new_version_cannot_read_waits_and_runs_after_the_rollback(tmp_path: Path) -> None:
    before = [FUNCTION.format(function=one, parameters="name: str", version="old") for one in NEW]
    after = [FUNCTION.format(function=one, parameters=NEW[one], version="new") for one in NEW]
    adding = f"""
        @app.post("/all/{{name}}")
        async def add_all(name: str, tasks: BackgroundTasks) -> None:
            tasks.configure(ordered=False)
            for function in ({", ".join(NEW)}):
                tasks.add_task(function, name)
        """
    [old, new], url = versions(tmp_path, (OLD, *before, adding), (AROUND, *after, "tasks = Afterwards(app)"))
    with uvicorn(old, AFTERWARDS_WORKER="off", **url) as server:
        server.post("/all/hunter2")
        server.stops()
    with uvicorn(new, **url) as server:
        eventually(lambda: all(task.set_aside for task in stored(tmp_path, *NEW)))
        still_works(server)
        assert {one: server.output.count(f"task set aside: {one}") for one in NEW} == dict.fromkeys(NEW, 1)
        assert "hunter2" not in server.output
        server.stops()
    tasks = stored(tmp_path, *NEW)
    assert [(one.state, one.attempt, one.failed, one.failures) for one in tasks] == [("queued", 1, 0, ())] * len(NEW)
    with uvicorn(new, **url) as again:
        for one in NEW:
            again.says(f"task set aside: {one}")
        still_works(again)
        again.stops()
    assert {task.attempt for task in stored(tmp_path, *NEW)} == {1}  # the same code does not claim it again
    with uvicorn(old, **url) as server:
        server.writes(*(f"old {one}" for one in NEW))


def test_an_old_server_runs_what_a_new_one_beside_it_cannot_read(tmp_path: Path) -> None:
    after = (
        FUNCTION.format(function="greet", parameters="name: str, title: str", version="new"),
        "tasks = Afterwards(app)",
    )
    [old, new], url = versions(tmp_path, (OLD,), after)
    store_and_stop(old, **url)
    with uvicorn(new, **url):
        eventually(is_set_aside(tmp_path))
        with uvicorn(old, **url) as before:
            before.writes("old greets hunter2")


def test_options_of_a_later_version_wait_for_it(tmp_path: Path) -> None:
    [old], url = versions(tmp_path, (OLD,))
    store_and_stop(old, **url)
    change(tmp_path, """UPDATE afterwards_tasks SET overrides = '{"colour": 1}'""")
    with uvicorn(old, **url) as server:
        eventually(is_set_aside(tmp_path))
        still_works(server)
        change(tmp_path, "UPDATE afterwards_tasks SET overrides = NULL")
        server.writes("old greets hunter2")


def test_a_context_of_a_later_version_waits_for_it(tmp_path: Path) -> None:
    [old], url = versions(tmp_path, (OLD,))
    store_and_stop(old, **url)
    change(tmp_path, """UPDATE afterwards_tasks SET more = '{"context": "[]"}'""")
    with uvicorn(old, **url) as server:
        eventually(is_set_aside(tmp_path))
        still_works(server)
        change(tmp_path, "UPDATE afterwards_tasks SET more = NULL")
        server.writes("old greets hunter2")


def test_rows_of_a_later_version_wait_while_the_rolled_back_one_runs_all_others(tmp_path: Path) -> None:
    [old], url = versions(tmp_path, (OLD,))
    store_and_stop(old, **url)
    change(tmp_path, """UPDATE afterwards_tasks SET more = '{"new_field": 1}'""")
    program = "import asyncio, main\nfor problem in asyncio.run(main.tasks.check()): print(problem)\n"
    with uvicorn(old, **url) as server:
        eventually(is_set_aside(tmp_path))
        still_works(server)
        assert server.output.count("task set aside: greet") == 1
        assert "CRITICAL" not in server.output
        said = output(program, old, **url)
        assert said.startswith("greet, record: this version does not know its new_field (1 task, ")
        change(tmp_path, "UPDATE afterwards_tasks SET more = NULL")
        server.writes("old greets hunter2")
