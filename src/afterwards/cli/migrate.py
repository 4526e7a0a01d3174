"""``afterwards migrate``: make or change the tables of a PostgreSQL database, or print the SQL that does."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Annotated, Any, TypeVar

import typer

from afterwards import engines, environment
from afterwards.cli.errors import CommandError, ExitCode, StoreUnreachable, UsageError
from afterwards.core.errors import EngineError, EngineUnavailable, UnsupportedEngine
from afterwards.core.urls import parse

R = TypeVar("R")

Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="The store. Default: AFTERWARDS_URL.")]
Sql = Annotated[bool, typer.Option("--sql", help="Print the SQL that is pending, and change nothing.")]
Check = Annotated[bool, typer.Option("--check", help="Change nothing, and exit with 1 if anything is pending.")]


def migrate(url: Url = None, sql: Sql = False, check: Check = False) -> None:
    """Make the tables of a PostgreSQL database, or change them to this version.

    The first process that opens a database does this by itself, if its user may make tables. Where it may not, run this
    as a user who may, or give `--sql` to somebody who can. An SQLite file is always migrated when it is opened.
    Exit codes: 0 done or nothing to do, 1 pending or failed, 2 usage error, 3 the database cannot be reached.
    """
    if sql and check:
        raise UsageError("--sql and --check exclude each other: --sql prints what is pending, --check only reports")
    store = url or environment.url() or engines.DEFAULT_URL
    shown = _checked(store)
    if sql:
        typer.echo(_script(_run(_pending(store))), nl=False)
    elif check:
        if statements := _run(_pending(store)):
            typer.echo(f"{shown}: {len(statements)} statements are pending: run `afterwards migrate`")
            raise typer.Exit(ExitCode.FAILED)
        typer.echo(f"{shown} is up to date")
    else:
        typer.echo(f"{shown} {'was migrated' if _run(_migrate(store)) else 'is up to date'}")


def _checked(url: str) -> str:
    """Return the URL as it may be shown. Raises UsageError if it is not that of a PostgreSQL database."""
    try:
        parsed = parse(url)
        shown = engines.shown(url)
        if parsed.kind == "postgresql":
            engines.shared(url)
    except UnsupportedEngine as error:
        raise UsageError(str(error)) from error
    if parsed.kind != "postgresql":
        raise UsageError(f"{shown} needs no migration by hand: give --url postgresql://..., or set AFTERWARDS_URL")
    return shown


def _run(call: Coroutine[Any, Any, R]) -> R:
    try:
        return asyncio.run(call)
    except EngineUnavailable as error:
        raise StoreUnreachable(str(error)) from error
    except EngineError as error:
        raise CommandError(str(error)) from error


async def _pending(url: str) -> Sequence[str]:
    from afterwards.engines.postgres import migrating  # it needs the driver

    return await migrating.pending(url)


async def _migrate(url: str) -> bool:
    from afterwards.engines.postgres import migrating  # as above

    return await migrating.migrate(url)


def _script(statements: Sequence[str]) -> str:
    """Return a script for psql that does all or nothing."""
    return "".join(f"{statement};\n\n" for statement in ("BEGIN", *statements, "COMMIT")) if statements else ""
