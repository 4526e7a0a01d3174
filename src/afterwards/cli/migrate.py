"""``afterwards migrate``: make or change the tables of a PostgreSQL database, or print the SQL that does."""

from collections.abc import Sequence
from typing import Annotated

import typer

from afterwards import engines
from afterwards.cli import output
from afterwards.cli.errors import ExitCode, UsageError
from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.store import named, waited_for
from afterwards.core.errors import UnsupportedEngine
from afterwards.core.urls import parse

Sql = Annotated[bool, typer.Option("--sql", help="Print the SQL that is pending, and change nothing.")]
Check = Annotated[bool, typer.Option("--check", help="Change nothing, and exit with 1 if anything is pending.")]


def migrate(sql: Sql = False, check: Check = False, as_json: AsJson = False, url: Url = None, app: App = None) -> None:
    """Make or change the tables of a PostgreSQL database.

    The first process that opens a database does this by itself, if its user may make tables. Where it may not, run this
    as a user who may, or give `--sql` to somebody who can. An SQLite file is always migrated when it is opened.
    """
    if sql and check:
        raise UsageError("--sql and --check exclude each other: --sql prints what is pending, --check only reports")
    if sql and as_json:
        raise UsageError("--sql prints a script and not JSON: leave --json out")
    store = named(url, app)
    shown = _checked(store.url)
    if sql:
        typer.echo(_script(waited_for(store, _pending(store.url))), nl=False)
    elif check:
        statements = waited_for(store, _pending(store.url))
        said = f"{shown}: {output.counted(len(statements), 'statement')} not run yet: run `afterwards migrate`"
        _print({"pending": len(statements)}, said if statements else f"{shown} is up to date", as_json=as_json)
        if statements:
            raise typer.Exit(ExitCode.FAILED)
    else:
        migrated = waited_for(store, _migrate(store.url))
        _print({"migrated": migrated}, f"{shown} {'was migrated' if migrated else 'is up to date'}", as_json=as_json)


def _print(value: dict[str, int], words: str, *, as_json: bool) -> None:
    if as_json:
        output.json_line(value)
    else:
        output.line(words)


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


async def _pending(url: str) -> Sequence[str]:
    from afterwards.engines.postgres import migrating  # it needs the driver

    return await migrating.pending(url)


async def _migrate(url: str) -> bool:
    from afterwards.engines.postgres import migrating  # as above

    return await migrating.migrate(url)


def _script(statements: Sequence[str]) -> str:
    """Return a script for psql that does all or nothing."""
    return "".join(f"{statement};\n\n" for statement in ("BEGIN", *statements, "COMMIT")) if statements else ""
