"""``afterwards check``: whether the application's code can run what is stored. Meant for the step before a deploy."""

from collections.abc import Sequence
from dataclasses import replace

import typer

from afterwards.cli import output
from afterwards.cli.errors import ExitCode
from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.store import run, with_application
from afterwards.core.problems import Problem
from afterwards.dispatch.fleet import Inspected
from afterwards.engine import Engine
from afterwards.tasks import compatibility
from afterwards.tasks.compatibility import UNFINISHED
from afterwards.tasks.fleet_check import unserved_tasks
from afterwards.web.runners import fleet_of


def check(as_json: AsJson = False, url: Url = None, app: App = None) -> None:
    """Say which stored tasks the application could not run.

    Exit code 1 if there are any. Run it with the new code before a deploy, while the old code still runs. It
    changes nothing, and shows no values.

    If the application dispatches its tasks to a fleet, it also shows the tasks that no live process of the fleet would
    take. The fleet is asked, too: if none of its processes would run tasks, the exit code is 1 if tasks wait.
    """
    store, client = with_application(url, app)
    fleet = fleet_of(client)

    async def checked(engine: Engine) -> tuple[list[Problem], Sequence[str], bool]:
        try:
            problems = await compatibility.check(client)
            if fleet is None:
                return problems, (), False
            problems += await unserved_tasks(engine)
            asked = await fleet.troubles() if isinstance(fleet, Inspected) else ()
            return problems, asked, bool(await engine.find(replace(UNFINISHED, limit=1)))
        finally:
            await client.close()

    problems, troubles, waits = run(store, checked)
    if as_json:
        output.json_line([_as_json(problem) for problem in problems])
    for problem in problems if not as_json else ():
        output.line(output.printable(str(problem)))
    output.flush()
    for trouble in troubles:
        output.say(f"fleet: {output.printable(trouble)}")
    if problems or (troubles and waits):
        raise typer.Exit(ExitCode.FAILED)
    output.say(f"{store.shown}: this code can run every unfinished task")


def _as_json(problem: Problem) -> dict[str, object]:
    return {
        "name": problem.name,
        "what": str(problem.what),
        "reason": problem.reason,
        "count": problem.count,
        "example": problem.example,
    }
