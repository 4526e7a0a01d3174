"""The outputs of ``afterwards tail``: progress bars above a terminal's last line, plain lines, or lines of JSON."""

from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from afterwards.cli import output, times
from afterwards.cli.following import Look
from afterwards.cli.list import what_went_wrong
from afterwards.cli.show import progress_text
from afterwards.core.record import TaskRecord
from afterwards.core.task import Task

MOST_BARS = 15
"""Bars that are shown at once; a terminal has few lines."""


class Lines:
    """A line for each task that ends, and for each attempt that will be repeated."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def look(self, look: Look) -> None:
        for task in look.waiting_again:
            self._print(self._line(TaskRecord.of(task, shown=True), "will run again"))
        for task in look.ended:
            self.ended(task)

    def ended(self, task: Task, *, with_logs: bool = False) -> None:
        record = TaskRecord.of(task, shown=True)
        for log in record.logs if with_logs else ():
            self._print(Text(output.printable(f"{times.iso(log.at)} {log.level} {log.message}"), "dim"))
        self._print(self._line(record, str(record.state)))

    def _line(self, record: TaskRecord, word: str) -> Text:
        """Return the end of an attempt in a line: when, id, name, how, how long, and why."""
        at = record.finished_at or times.now()
        took = f" in {times.lasting(at - record.started_at)}" if record.started_at and at > record.started_at else ""
        why = what_went_wrong(record)
        said = f" {record.id} {record.name} "
        style = output.STYLES.get(word, "yellow")
        text = Text.assemble(f"{at.astimezone():%H:%M:%S}", output.printable(said), (word, style), took)
        return text.append(f": {output.printable(why)}" if why else "")

    def _print(self, text: Text) -> None:
        output.line(text.plain)
        output.flush()


class LinesOfJson(Lines):
    """The record of each task that ends, as a line of JSON."""

    def look(self, look: Look) -> None:
        for task in look.ended:
            self.ended(task)

    def ended(self, task: Task, *, with_logs: bool = False) -> None:
        output.json_line(TaskRecord.of(task).as_json())


class _Count(ProgressColumn):
    """The description that the task's function gives of its progress."""

    def render(self, task: Any) -> Text:
        return Text(output.printable(str(task.fields.get("said", ""))), no_wrap=True, overflow="ellipsis")


class Bars(Lines):
    """A progress bar for each running task, below the lines of those that have ended."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            _Count(),
            TimeElapsedColumn(),
            console=output.console(),
            transient=True,
        )
        self._bars: dict[str, TaskID] = {}  # by the id of the task

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def look(self, look: Look) -> None:
        super().look(look)
        shown = look.running[:MOST_BARS]
        for id in self._bars.keys() - {task.id for task in shown}:
            self._progress.remove_task(self._bars.pop(id))
        for task in shown:
            self._show(TaskRecord.of(task, shown=True))

    def _show(self, record: TaskRecord) -> None:
        progress = record.progress
        done = None if progress is None else progress.fraction
        said = "" if progress is None else progress_text(progress)
        if record.id not in self._bars:
            self._bars[record.id] = self._progress.add_task(output.printable(record.name), total=None, said=said)
        bar = self._bars[record.id]
        self._progress.update(bar, completed=done or 0, total=None if done is None else 1, said=said)

    def _print(self, text: Text) -> None:
        self._progress.console.print(text, soft_wrap=True)
