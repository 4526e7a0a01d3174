"""``afterwards backup``: copy the tasks to a file while the application goes on."""

from pathlib import Path
from typing import Annotated

import typer

from afterwards.cli import output
from afterwards.cli.errors import CommandError, UsageError
from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.store import Store, named, run
from afterwards.core.errors import EngineError
from afterwards.engine import Engine, InAFile

Target = Annotated[
    Path, typer.Argument(metavar="PATH", help="The file to write. It must not exist.", show_default=False)
]


def backup(path: Target, as_json: AsJson = False, url: Url = None, app: App = None) -> None:
    """Copy all tasks to a new file, while everything goes on.

    The copy is a complete SQLite file, as the tasks were at one instant. To restore it, stop the application and
    put it in the place of the original.
    """
    _check(path)
    store = named(url, app)

    async def copied(engine: Engine) -> None:
        await _backup(engine, store, path)

    run(store, copied)
    if as_json:
        output.json_line({"store": store.shown, "path": str(path), "bytes": path.stat().st_size})
        return
    output.line(f"{store.shown} was copied to {path} ({_size(path)})")


def _check(path: Path) -> None:
    """Raise UsageError for a path at which no file can be made."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: add the name of the file, as {path / 'copy.db'}")
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists already, and is not overwritten: give another path, or remove it first")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {path.absolute().parent} for {path.name}: create it first")


async def _backup(engine: Engine, store: Store, path: Path) -> None:
    if not isinstance(engine, InAFile):
        raise UsageError(f"{store.shown} is a server: back it up with its own tools, such as pg_dump for PostgreSQL")
    try:
        await engine.backup(path)
    except EngineError as error:
        raise CommandError(f"nothing was copied: {error}") from error


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1_000_000:.1f} MB" if size >= 100_000 else f"{size / 1000:.1f} kB"
