"""Log lines about the dashboard."""

import logging
from functools import partial

from afterwards.telemetry import writing
from afterwards.telemetry.writing import DASHBOARD

once = partial(writing.once, logger=DASHBOARD)
write = partial(writing.write, logger=DASHBOARD)


def dashboard_closed() -> None:
    once(
        "dashboard closed",
        logging.WARNING,
        "afterwards: the dashboard refuses everybody, because it was installed without auth: give it a dependency that "
        'decides who may see it, as Afterwards(app, dashboard="/afterwards", auth=Depends(admin))',
    )


def not_a_visitor(kind: str) -> None:
    once(
        f"not a visitor {kind}",
        logging.ERROR,
        f"afterwards: the dashboard's auth returned a {kind}, which lets nobody in: raise an HTTPException to refuse a "
        "visitor, and await what has to be awaited",
    )


def acted(who: str, action: str, what: str, changed: int | None = None) -> None:
    """Log what a visitor of the dashboard did. ``changed`` is the number of tasks."""
    number = "" if changed is None else f": {changed:,} {'task' if changed == 1 else 'tasks'}"
    write(
        logging.INFO,
        f"dashboard: {who} asked to {action} {what}{number}",
        extra={"who": who, "action": action, "what": what, "changed": changed},
    )
