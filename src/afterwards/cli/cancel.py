"""``afterwards cancel``: cancel tasks that have not finished."""

from typing import Annotated

import typer

from afterwards.cli.acting import Act, act
from afterwards.cli.filters import Wanted
from afterwards.cli.options import App, AsJson, Ids, Names, Queues, Since, States, TextPart, Url, Yes
from afterwards.cli.store import named
from afterwards.client import steering
from afterwards.client.steering import Filter
from afterwards.core.task import FINISHED, State
from afterwards.core.text import shortened
from afterwards.engine import Engine

Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="The reason, as the record will show it.")]

UNFINISHED = frozenset(State) - FINISHED


def cancel(
    ids: Ids = None,
    state: States = None,
    name: Names = None,
    queue: Queues = None,
    text: TextPart = None,
    since: Since = None,
    reason: Reason = "cancelled on the command line",
    yes: Yes = False,
    as_json: AsJson = False,
    url: Url = None,
    app: App = None,
) -> None:
    """Cancel tasks that have not finished, and those behind them.

    Running ones are asked to stop.

    Name them by ids, or by a filter. With a filter, the number is said, and you are asked.
    """

    async def change(engine: Engine, chosen: Filter) -> int:
        return await steering.cancel(engine, chosen, shortened(reason))

    what = Act(verb="cancel", done="cancelled", states=UNFINISHED, unless_said=UNFINISHED, change=change)
    wanted = Wanted(ids=ids, states=state, names=name, queues=queue, text=text, since=since)
    raise typer.Exit(act(what, named(url, app), wanted, yes=yes, as_json=as_json))
