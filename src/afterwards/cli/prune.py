"""``afterwards prune``: delete the records whose retention is over."""

from afterwards.cli import output
from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.store import named, run
from afterwards.engine import Engine

_PIECE = 1000


def prune(as_json: AsJson = False, url: Url = None, app: App = None) -> None:
    """Delete finished tasks whose retention is over.

    Their files are deleted, too. Workers do this by themselves.
    """

    async def pruned(engine: Engine) -> int:
        total = 0
        while number := await engine.prune(_PIECE):
            total += number
        return total

    number = run(named(url, app), pruned)
    if as_json:
        output.json_line({"pruned": number})
    else:
        output.line(f"{output.counted(number, 'task')} pruned")
