"""``afterwards delete``: delete the records of finished tasks."""

import typer

from afterwards.cli.acting import Act, act
from afterwards.cli.filters import Wanted
from afterwards.cli.options import App, AsJson, Ids, Names, Queues, Since, States, TextPart, Url, Yes
from afterwards.cli.store import named
from afterwards.client import steering
from afterwards.core.task import FINISHED

DELETE = Act(verb="delete", done="deleted", states=FINISHED, unless_said=FINISHED, change=steering.delete)


def delete(
    ids: Ids = None,
    state: States = None,
    name: Names = None,
    queue: Queues = None,
    text: TextPart = None,
    since: Since = None,
    yes: Yes = False,
    as_json: AsJson = False,
    url: Url = None,
    app: App = None,
) -> None:
    """Delete the records of finished tasks, and their files.

    They cannot be brought back.

    Name them by ids, or by a filter. With a filter, the number is said, and you are asked. `afterwards prune` deletes
    only those whose retention is over.
    """
    wanted = Wanted(ids=ids, states=state, names=name, queues=queue, text=text, since=since)
    raise typer.Exit(act(DELETE, named(url, app), wanted, yes=yes, as_json=as_json))
