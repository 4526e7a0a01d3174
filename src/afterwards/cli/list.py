"""``afterwards list``: the tasks that match a filter, newest first."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import typer
from rich.text import Text

from afterwards.cli import output, times
from afterwards.cli.filters import Wanted, identified
from afterwards.cli.options import App, AsJson, Names, Queues, Since, States, TextPart, Url
from afterwards.cli.store import named, run
from afterwards.client.steering import PAGE, Filter, Page, pages
from afterwards.core.record import TaskRecord
from afterwards.core.task import State
from afterwards.engine import Engine

Limit = Annotated[int, typer.Option("--limit", "-l", min=1, metavar="NUMBER", help="The most tasks that are listed.")]
Before = Annotated[
    str | None, typer.Option("--before", metavar="ID", help="Go on below this task, the last one of the list before.")
]

ID, STATE, ATTEMPT, WHEN, QUEUE = 36, 9, 4, 10, 12
"""Columns of a row; the name has the rest."""

WIDE = 100
"""Columns of a terminal that has room for the queue, too."""


def list_tasks(
    state: States = None,
    name: Names = None,
    queue: Queues = None,
    text: TextPart = None,
    since: Since = None,
    limit: Limit = 100,
    before: Before = None,
    as_json: AsJson = False,
    url: Url = None,
    app: App = None,
) -> None:
    """List tasks, newest first: `afterwards list --state failed`.

    The JSON is one array of records. Values that are secret are hidden everywhere.
    """
    chosen = Wanted(states=state, names=name, queues=queue, text=text, since=since).filter()
    store = named(url, app)

    async def print_all(engine: Engine) -> None:
        below = None if before is None else (await identified(engine, [before]))[0].id
        found = _pages(engine, chosen, limit, below)
        await (_print_json(found) if as_json else _print_rows(found, chosen))

    run(store, print_all)


async def _pages(engine: Engine, chosen: Filter, limit: int, before: str | None) -> AsyncIterator[Page]:
    """Yield pages until so many tasks are listed. Only one page is in memory."""
    left, last = limit, before
    async for tasks in pages(engine, chosen.query(limit=min(limit + 1, PAGE), before=before)):
        if left:
            last = tasks[:left][-1].id
        yield Page(list(tasks[:left]), last if len(tasks) > left else None)
        if len(tasks) > left:
            break
        left -= len(tasks)


async def _print_json(found: AsyncIterator[Page]) -> None:
    output.write("[")
    between, more = "\n", None
    async for page in found:
        for task in page.tasks:
            output.write(f"{between}{json.dumps(TaskRecord.of(task).as_json())}")
            between = ",\n"
        more = page.next
    output.line("\n]" if between != "\n" else "]")
    output.flush()
    if more:
        output.say(f"there are more: --before {more}, or a higher --limit")


async def _print_rows(found: AsyncIterator[Page], chosen: Filter) -> None:
    console = output.console()
    width = min(console.width, 160)
    number, more = 0, None
    async for page in found:
        if page.tasks and not number:
            output.show(Text(_row(("id", "name", "queue", "state", "att.", "when"), width), style="bold"))
        output.flush()
        for task in page.tasks:
            for line in _lines(TaskRecord.of(task, shown=True), width):
                console.print(line, no_wrap=True, overflow="ignore", crop=False)
        number += len(page.tasks)
        more = page.next
    if not number:
        output.say(_nothing(chosen))
    if more:
        output.say(f"{number:,} tasks are shown, and there are more: --before {more}, or a higher --limit")


def _lines(record: TaskRecord, width: int) -> Sequence[Text]:
    """Return the row of a task, and a second one with the last error or the reason of its end."""
    cells = record.id, record.name, record.queue, str(record.state), str(record.attempt), _when(record)
    row = Text(_row(cells, width))
    start = row.plain.rindex(str(record.state))  # the name may hold the same word
    row.stylize(output.STYLES.get(record.state, ""), start, start + len(record.state))
    why = what_went_wrong(record)
    return [row] if why is None else [row, Text(output.fitted(f"  {output.printable(why)}", width).rstrip(), "dim")]


def _row(cells: tuple[str, str, str, str, str, str], width: int) -> str:
    id, name, queue, state, attempt, when = map(output.printable, cells)
    columns = [(id, ID), (name, 0), (queue, QUEUE), (state, STATE), (attempt, ATTEMPT), (when, WHEN)]
    if width < WIDE:
        del columns[2]
    rest = max(4, width + 1 - sum(size + 1 for _, size in columns))
    return " ".join(output.fitted(text, size or rest) for text, size in columns).rstrip()


def _when(record: TaskRecord) -> str:
    """Return when the task came into its state, or when it will leave it."""
    at = {State.RUNNING: record.started_at, State.SCHEDULED: record.run_at}.get(record.state)
    return times.ago(at or record.finished_at or record.created_at, times.now())


def what_went_wrong(record: TaskRecord) -> str | None:
    """Return the last error of a task that failed or will be retried, or why it was cancelled. None: all is well."""
    if record.unreadable or record.set_aside:
        return f"set aside: {record.unreadable or record.set_aside}"
    if record.state is State.CANCELLED:
        return record.reason
    if not record.failures or not (record.state is State.FAILED or record.retrying):
        return None
    last = record.failures[-1]
    said = f"{last.type}: {last.message}" if last.type else f"{last.kind}: {last.message}"
    return " ".join(said.split()).rstrip(": ")


def _nothing(chosen: Filter) -> str:
    if chosen == Filter():
        return "no tasks are stored here. `afterwards enqueue NAME` stores one, as add_task does in a request"
    return "no task matches. `afterwards queues` shows how many there are in each queue and state"
