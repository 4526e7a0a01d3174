"""``afterwards check``: whether the application's code can run what is stored. Meant for the step before a deploy."""

import typer

from afterwards.cli import output
from afterwards.cli.errors import ExitCode
from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.store import run, with_application
from afterwards.core.problems import Problem
from afterwards.engine import Engine
from afterwards.tasks import compatibility


def check(as_json: AsJson = False, url: Url = None, app: App = None) -> None:
    """Say which stored tasks the application could not run.

    Exit code 1 if there are any. Run it with the new code before a deploy, while the old code still runs. It
    changes nothing, and shows no values.
    """
    store, client = with_application(url, app)

    async def checked(engine: Engine) -> list[Problem]:
        try:
            return await compatibility.check(client)
        finally:
            await client.close()

    problems = run(store, checked)
    if as_json:
        output.json_line(
            [
                {
                    "name": one.name,
                    "what": str(one.what),
                    "reason": one.reason,
                    "count": one.count,
                    "example": one.example,
                }
                for one in problems
            ]
        )
    for problem in problems if not as_json else ():
        output.line(output.printable(str(problem)))
    output.flush()
    if problems:
        raise typer.Exit(ExitCode.FAILED)
    output.say(f"{store.shown}: this code can run every unfinished task")
