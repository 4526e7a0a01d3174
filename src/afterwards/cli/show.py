"""``afterwards show``: everything about one task."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from afterwards.cli import output, times
from afterwards.cli.filters import identified
from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.store import named, run
from afterwards.core.progress import Progress
from afterwards.core.record import TaskRecord
from afterwards.core.task import State, Task
from afterwards.engine import Engine

Id = Annotated[str, typer.Argument(metavar="ID", help="The task's id, or its first 8 characters or more.")]


def show(id: Id, as_json: AsJson = False, url: Url = None, app: App = None) -> None:
    """Show one task, with its errors, log lines and result.

    Values that are secret are hidden.
    """

    async def one(engine: Engine) -> Task:
        return (await identified(engine, [id]))[0]

    task = run(named(url, app), one)
    if as_json:
        output.json_line(TaskRecord.of(task).as_json())
        return
    record = TaskRecord.of(task, shown=True)
    console, now = output.console(), times.now()
    for text in _lines(record, now):
        console.print(text, soft_wrap=True)
    output.flush()
    if record.state.finished:
        output.say(f"to run it again: afterwards requeue {record.id}")


def _lines(record: TaskRecord, now: datetime) -> Iterator[Text]:
    yield Text.assemble(
        (output.printable(record.name), "bold"), " ", (str(record.state), output.STYLES.get(record.state, ""))
    )
    for name, value in _facts(record, now):
        if value:
            yield Text.assemble((f"  {name:<12}", "dim"), output.printable(value))
    for title, lines in (("arguments", _arguments(record)), ("result", _result(record))):
        yield from _part(title, lines)
    for failure in record.failures:
        who = f", worker {failure.worker}" if failure.worker else ""
        yield from _part(
            f"attempt {failure.attempt} {failure.kind.replace('_', ' ')} {times.ago(failure.at, now)}{who}",
            (failure.traceback or f"{failure.type}: {failure.message}".strip(": ")).splitlines(),
        )
    if record.failures_left_out:
        yield Text(f"({record.failures_left_out:,} failures between the first and the last ones are left out)")
    yield from _part("log", [f"{log.attempt}  {times.iso(log.at)} {log.level} {log.message}" for log in record.logs])


def _facts(record: TaskRecord, now: datetime) -> Iterator[tuple[str, str | None]]:
    yield "id", record.id
    yield "queue", record.queue + (f", priority {record.priority}" if record.priority else "")
    yield "attempt", str(record.attempt) if record.attempt else "none yet"
    yield "added", _at(record.created_at, now)
    yield "added by", record.origin
    if record.state is State.SCHEDULED:
        yield ("retry" if record.retrying else "starts"), _at(record.run_at, now)
    yield "started", _at(record.started_at, now)
    yield "ended", _at(record.finished_at, now)
    yield "expires", _at(record.expires_at, now)
    yield "worker", record.worker
    yield "progress", None if record.progress is None else progress_text(record.progress)
    yield "stopping", record.cancel_requested
    yield "reason", record.reason
    yield "because of", record.cause
    yield "comes after", record.after
    yield "key", record.idempotency_key
    yield "unique key", record.unique_key
    yield "trace", record.trace
    yield "set aside", record.set_aside
    yield "unreadable", record.unreadable
    yield "note", "a plain function: it is recorded because it failed, and cannot run again" if record.plain else None


def progress_text(progress: Progress) -> str:
    """Return the progress as "30 % (3 of 10 rows) importing"."""
    total = f" of {progress.total:g}" if progress.total is not None else ""
    unit = f" {progress.unit}" if progress.unit else ""
    count = f"{progress.done:g}{total}{unit}"
    texts = " ".join(text for text in (progress.description, progress.note) if text)
    share = progress.fraction
    return f"{count if share is None else f'{share:.0%} ({count})'} {texts}".rstrip()


def _arguments(record: TaskRecord) -> Sequence[str]:
    return [f"{name} = {_json(value)}" for name, value in record.arguments.items()]


def _result(record: TaskRecord) -> Sequence[str]:
    return [] if record.result is None else _json(record.result).splitlines()


def _part(title: str, lines: Sequence[str]) -> Iterator[Text]:
    if lines:
        yield Text(title, "bold")
        yield from (Text(f"  {output.printable(line)}") for line in lines)


def _at(at: datetime | None, now: datetime) -> str | None:
    return None if at is None else f"{times.iso(at.replace(microsecond=0))} ({times.ago(at, now)})"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
