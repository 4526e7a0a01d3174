"""What people see who start an application, however they start it."""

import re
import sys
from pathlib import Path

import pytest

from face.processes import Program, output, uvicorn, write_application

STARTED = r"INFO: +afterwards: sqlite:///{file}, worker here, 20 tasks and 20 threads at once\n"


def test_uvicorns_stock_logging_shows_the_startup_line_and_failures_with_their_traceback(tmp_path: Path) -> None:
    write_application(
        tmp_path,
        """
        Afterwards(app)

        @task
        async def explode(text: str) -> None:
            raise LookupError(text)

        def explode_plainly(text: str) -> None:
            raise LookupError(text)

        @app.post("/explode")
        async def add(tasks: BackgroundTasks) -> None:
            tasks.add_task(explode, "durably")
            tasks.add_task(explode_plainly, "plainly")
        """,
    )
    with uvicorn(tmp_path) as server:
        server.post("/explode")
        server.says(r"ERROR: +task failed: explode \([0-9a-f-]{36}\), attempt 1: LookupError: durably\n")
        server.says(r'File ".*main.py", line \d+, in explode\n')
        server.says(r"LookupError: durably\n")
        server.says(r"LookupError: plainly\n")
    assert len(re.findall(STARTED.format(file=re.escape(f"{tmp_path}/afterwards.db")), server.output)) == 1


def test_the_users_own_logging_is_left_alone(tmp_path: Path) -> None:
    write_application(
        tmp_path,
        """
        import logging
        logging.basicConfig(format="MINE %(levelname)s %(name)s %(message)s", level=logging.INFO)
        Afterwards(app)
        """,
    )
    with uvicorn(tmp_path) as server:
        server.says(r"MINE INFO afterwards\.worker afterwards: sqlite")
    assert len(re.findall("worker here", server.output)) == 1


MAIN = """
Afterwards(app)

if __name__ == "__main__":
    import uvicorn
    uvicorn.run({app}, port=0)
"""


@pytest.mark.parametrize("app", ["app", '"main:app"'])
def test_python_main_py_runs_what_the_module_main_stored(tmp_path: Path, app: str) -> None:
    """The names of tasks are the same, although the module is ``__main__`` here and ``main`` there, or both."""
    write_application(tmp_path, MAIN.format(app=app))
    output("import main; main.note.enqueue_sync('stored by main')", tmp_path)
    with Program([sys.executable, "main.py"], tmp_path) as server:
        server.post("/note/stored by __main__")
        server.writes("stored by main", "stored by __main__")


def test_a_package_has_the_same_names_as_a_module_of_it(tmp_path: Path) -> None:
    """``fastapi dev app/main.py`` imports ``app.main``, ``python app/main.py`` makes it ``__main__``."""
    package = tmp_path / "app"
    package.mkdir()
    write_application(package, "Afterwards(app)", "print(note.name, wait_until_told.name)")
    (package / "__init__.py").touch()
    said = output("import app.main, runpy; runpy.run_path('app/main.py', run_name='__main__')", tmp_path)
    assert said == "note wait_until_told\n" * 2


def test_a_mistake_in_a_task_function_stops_the_start_and_is_named(tmp_path: Path) -> None:
    write_application(
        tmp_path,
        """
        Afterwards(app)

        @task
        async def mistaken(text: "NeverDefined") -> None: ...
        """,
    )
    with uvicorn(tmp_path) as server:
        server.says("mistaken")
        server.says("NeverDefined")
        assert server.ends() != 0


def test_importing_loads_nothing_but_fastapi_and_the_standard_library(tmp_path: Path) -> None:
    foreign = output(
        """
        import sys
        import fastapi, fastapi.testclient  # the client is what FastAPI's own users have loaded anyway
        known = {name.partition(".")[0] for name in sys.modules} | sys.stdlib_module_names
        import afterwards
        print({name.partition(".")[0] for name in sys.modules} - known)
        """,
        tmp_path,
    )
    assert foreign == "{'afterwards'}\n"
