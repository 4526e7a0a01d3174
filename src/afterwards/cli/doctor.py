"""``afterwards doctor``: look for what keeps tasks from running, or puts them at risk."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from afterwards.cli import output, times
from afterwards.cli.errors import ExitCode
from afterwards.cli.findings import Finding, Level, Read, of_database, of_file, of_store
from afterwards.cli.options import App, AsJson, Url
from afterwards.cli.store import Store, check, named, run, waited_for
from afterwards.client.steering import Filter, counted, listed
from afterwards.core.routing import ALIVE, UNROUTABLE_AFTER
from afterwards.core.task import State
from afterwards.core.urls import parse
from afterwards.dispatch.fleet import Inspected
from afterwards.engine import Engine, Query
from afterwards.engines.sqlite.diagnosis import diagnose as diagnose_file
from afterwards.web.runners import fleet_of

MOST_SET_ASIDE = 1000


def doctor(as_json: AsJson = False, url: Url = None, app: App = None) -> None:
    """Look for what keeps tasks from running, or is a risk.

    Exit code 1 if there is a problem. It looks at the store (version, file system, migrations, clock), at the
    workers, at tasks that no worker takes, at
    what is paused, and at the longest wait. It changes nothing.
    """
    store = named(url, app)
    findings = [Finding("store", Level.OK, store.shown), *_of_place(store)]
    now = times.now()
    in_a_file = parse(store.url).kind == "sqlite"
    if not any(one.about == "migrations" and one.level is Level.PROBLEM for one in findings):
        findings += of_store(run(store, _read), now, in_a_file=in_a_file)
    findings += _of_fleet(store)
    if as_json:
        output.json_line([{"about": one.about, "level": str(one.level), "text": one.text} for one in findings])
    else:
        output.show(_table(findings))
    problems = sum(one.level is Level.PROBLEM for one in findings)
    output.say("no problem was found" if not problems else f"{output.counted(problems, 'problem')} found")
    raise typer.Exit(ExitCode.FAILED if problems else ExitCode.DONE)


def _of_place(store: Store) -> Sequence[Finding]:
    """Return the findings about the file or the server. Raises CommandError if it cannot be reached."""
    check(store.url)
    parsed = parse(store.url)
    if parsed.kind == "sqlite":
        return list(of_file(diagnose_file(Path(parsed.file).absolute())))
    return _of_server(store)


def _of_server(store: Store) -> Sequence[Finding]:
    from afterwards.engines.postgres.diagnosis import diagnose  # it needs the driver

    found = waited_for(store, diagnose(store.url))
    return list(of_database(found.version, pooled=found.pooled, pending=found.pending, now=found.now, here=times.now()))


def _of_fleet(store: Store) -> Sequence[Finding]:
    """Return why no process of the fleet would run a task, if the application was loaded and has a fleet."""
    fleet = None if store.client is None else fleet_of(store.client)
    if not isinstance(fleet, Inspected):
        return []
    troubles = asyncio.run(_asked(fleet))
    found = [Finding("fleet", Level.PROBLEM, trouble) for trouble in troubles]
    return found or [Finding("fleet", Level.OK, "its workers answer, and know this application")]


async def _asked(fleet: Inspected) -> Sequence[str]:
    return await fleet.troubles()


async def _read(engine: Engine) -> Read:
    newest = (await listed(engine, Filter(), limit=1)).tasks
    lately = Filter(states=frozenset({State.FAILED}), since=times.now() - timedelta(days=1))
    return Read(
        stats=await engine.stats(),
        paused=await engine.paused(),
        workers=await engine.workers(ALIVE),
        unroutable=await engine.unroutable(UNROUTABLE_AFTER),
        set_aside=len(await engine.find(Query(set_aside=True, limit=MOST_SET_ASIDE))),
        failed_lately=await counted(engine, lately),
        newest=newest[0].created_at if newest else None,
    )


def _table(findings: Sequence[Finding]) -> Table:
    made = Table.grid(padding=(0, 1))
    for one in findings:
        made.add_row(output.styled(str(one.level)), one.about, Text(output.printable(one.text)))
    return made
