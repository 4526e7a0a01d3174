"""The application as an argument of any command, without ``--app``: ``afterwards list main:app``."""

import re
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand

_APPLICATION = re.compile(r"[^:]+:[A-Za-z_]\w*")
"""``module:attribute`` or ``file.py:attribute``. Ids have no colon."""

_IDS = ("ids", "id")
"""Parameters that take any argument, and mean ids."""


class Command(TyperCommand):
    """A command that takes ``module:attribute`` among its arguments as ``--app``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True
        left = super().parse_args(ctx, args)
        optional = [one.name for one in self.params if one.name in _IDS and not one.required]
        named = [*left, *_taken_as_ids(ctx.params, optional)]
        if len(named) == 1 and "app" in ctx.params and ctx.params["app"] is None and _APPLICATION.fullmatch(named[0]):
            ctx.params["app"], left = named[0], []
        elif named:
            ctx.fail(f"Got unexpected extra argument{'s' * (len(named) > 1)} ({' '.join(named)})")
        ctx.args = left
        return left


def _taken_as_ids(params: dict[str, Any], names: Iterable[str | None]) -> list[str]:
    """Remove from these parameters what can only be an application, and return it."""
    found: list[str] = []
    for name in filter(None, names):
        given = params.get(name)
        if isinstance(given, str) and _APPLICATION.fullmatch(given):
            found, params[name] = [given], None
        elif isinstance(given, list | tuple):
            found = [one for one in given if _APPLICATION.fullmatch(one)]
            params[name] = [one for one in given if one not in found] or None
    return found
