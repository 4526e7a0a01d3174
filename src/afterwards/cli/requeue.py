"""``afterwards requeue``: run finished tasks again."""

import typer

from afterwards.cli.acting import Act, act
from afterwards.cli.filters import Wanted
from afterwards.cli.options import App, AsJson, Ids, Names, Queues, Since, States, TextPart, Url, Yes
from afterwards.cli.store import named
from afterwards.client import steering
from afterwards.core.task import FINISHED, State

REQUEUE = Act(
    verb="requeue",
    done="requeued",
    states=FINISHED,
    unless_said=frozenset({State.FAILED}),  # what has succeeded is run again only if somebody says so
    change=steering.requeue,
)


def requeue(
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
    """Run finished tasks again.

    For example: afterwards requeue --state failed --since 1h.

    Name them by ids, or by a filter. A filter without --state means the failed ones. With a filter, the number is
    said, and you are asked. Tasks that were cancelled because of a requeued one come back with it.
    """
    wanted = Wanted(ids=ids, states=state, names=name, queues=queue, text=text, since=since)
    raise typer.Exit(act(REQUEUE, named(url, app), wanted, yes=yes, as_json=as_json))
