"""The options that several commands have, each in one place."""

from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The store. Default: AFTERWARDS_URL, then the application's."),
]
App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="APP",
        help="The application, as module:attribute. Default: pyproject.toml's, then main.py, app.py, api.py.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="Ids of tasks, or their first 8 characters or more.", show_default=False),
]
States = Annotated[
    list[str] | None,
    typer.Option("--state", "-s", metavar="STATE", help="Tasks in this state; several: repeat it, or use commas."),
]
Names = Annotated[
    list[str] | None,
    typer.Option("--name", "-n", metavar="NAME", help="Tasks of this task function; several as with --state."),
]
Queues = Annotated[
    list[str] | None,
    typer.Option("--queue", "-q", metavar="QUEUE", help="Tasks in this queue; several as with --state."),
]
TextPart = Annotated[
    str | None,
    typer.Option("--text", metavar="TEXT", help="Tasks with this in id, name, request, arguments or error."),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Tasks that ended since then (unfinished ones: were added): 90s, 30m, 1h, 7d, or 2026-11-28T10:00.",
    ),
]
