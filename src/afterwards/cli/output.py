"""The two outputs of a command: data on stdout, words on stderr."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from afterwards.cli.errors import CommandError, ExitCode
from afterwards.core.urls import without_passwords

STYLES = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "ok": "green",
    "warning": "yellow",
    "problem": "red",
    "paused": "yellow",
}
"""Colors of words that also stand there as text."""


class OutputClosed(CommandError):
    """Nobody reads the output any more, as after ``| head``: the command ends without a word."""

    code = ExitCode.DONE


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise OutputClosed


def console(*, stderr: bool = False) -> Console:
    """Return a console. It is plain if NO_COLOR is set or the output is no terminal."""
    plain: dict[str, Any] = {"color_system": None, "no_color": True} if os.environ.get("NO_COLOR") else {}
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False, **plain)


def say(words: str) -> None:
    """Write a line of words on stderr. Passwords of URLs are hidden."""
    with suppress(OSError):  # nobody reads it
        print(without_passwords(words), file=sys.stderr, flush=True)


def line(text: str = "") -> None:
    """Write a line of data on stdout. Raises OutputClosed."""
    write(f"{text}\n")


def write(text: str) -> None:
    """Write data on stdout. Raises OutputClosed."""
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        raise OutputClosed from None


def json_line(value: Any) -> None:
    """Write a value as one line of JSON, which every terminal and locale can hold, and which hides no control code."""
    line(json.dumps(value))
    flush()


def flush() -> None:
    """Write what is buffered. Raises OutputClosed."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise OutputClosed from None


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
    """Write a table that fits the terminal; the first column gets the most space. ``numbers`` names number columns."""
    made = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for number, name in enumerate(columns):
        right = name in numbers
        made.add_column(
            name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis", min_width=10 * (number == 0)
        )
    for row in rows:
        made.add_row(*(styled(printable(cell)) for cell in row))
    show(made)


def show(*rendered: Any) -> None:
    """Write what rich renders. Raises OutputClosed."""
    flush()
    console().print(*rendered, soft_wrap=False)


def styled(text: str) -> Text:
    return Text(text, style=STYLES.get(text, ""))


def fitted(text: str, width: int) -> str:
    """Return a text in as many columns as are given, padded or cut.

    >>> fitted("retry", 7), fitted("send_newsletter", 7)
    ('retry  ', 'send_n…')
    """
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return f"{set_cell_size(text, width - 1)}…" if width > 0 else ""


def printable(text: str) -> str:
    r"""Return a text with control characters as escapes, so that no stored text can steer the terminal.

    >>> printable("a\x1b[2J")
    'a\\x1b[2J'
    """
    return text if text.isprintable() else "".join(one if one.isprintable() else _escaped(one) for one in text)


def counted(number: int, thing: str) -> str:
    """Return a number of things.

    >>> counted(1, "task"), counted(1200, "task")
    ('1 task', '1,200 tasks')
    """
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _escaped(character: str) -> str:
    return repr(character)[1:-1]
