"""``afterwards backup``: copy the tasks to a file while the application goes on."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from afterwards import engines
from afterwards.cli.errors import CommandError, UsageError
from afterwards.cli.store import opened, usual_url
from afterwards.core.errors import EngineError
from afterwards.engine import InAFile

Target = Annotated[
    Path, typer.Argument(metavar="PATH", help="The file to write. It must not exist.", show_default=False)
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="The store. Default: AFTERWARDS_URL, then afterwards.db in the working folder."
    ),
]


def backup(path: Target, url: Url = None) -> None:
    """Copy all tasks, as they are at one instant, to a new file. Requests and workers continue meanwhile.

    The copy is a complete SQLite file. To restore it, stop the application and put it in the place of the original.
    Exit codes: 0 done, 1 failed, 2 usage error, 3 the store cannot be opened.
    """
    _check(path)
    source = url or usual_url()
    asyncio.run(_backup(source, path))
    typer.echo(f"{engines.shown(source)} was copied to {path} ({_size(path)})")


def _check(path: Path) -> None:
    """Raise UsageError for a path at which no file can be made."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: add the name of the file, as {path / 'copy.db'}")
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists already, and is not overwritten: give another path, or remove it first")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {path.absolute().parent} for {path.name}: create it first")


async def _backup(url: str, path: Path) -> None:
    async with opened(url) as engine:
        if not isinstance(engine, InAFile):
            raise UsageError(
                f"{engines.shown(url)} is a server: back it up with its own tools, such as pg_dump for PostgreSQL"
            )
        try:
            await engine.backup(path)
        except EngineError as error:
            raise CommandError(f"nothing was copied: {error}") from error


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1_000_000:.1f} MB" if size >= 100_000 else f"{size / 1000:.1f} kB"
