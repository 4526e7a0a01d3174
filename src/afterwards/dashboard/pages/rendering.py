"""Render a page: the templates, and what each of them may use."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.types import Scope

from afterwards import engines, environment
from afterwards.dashboard import site as sites
from afterwards.dashboard import words
from afterwards.dashboard.pages.acts import ACTS
from afterwards.dashboard.pages.assets import ASSETS
from afterwards.dashboard.site import Site

THEME: Final = "afterwards_theme"
"""The cookie that keeps whether a visitor chose light or dark."""

THEMES: Final = ("system", "light", "dark")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """The values that every page has around its content."""

    site: Site
    theme: str
    now: datetime
    here: str  # the address of this page
    notice: str | None  # what the last act did

    def link(self, *parts: str, **query: str | None) -> str:
        """Return the address of a page. Parameters that are None or empty are left out."""
        said = {key: value for key, value in query.items() if value}
        path = self.site.link(*parts)
        return f"{path}?{urlencode(said)}" if said else path

    def asset(self, name: str) -> str:
        return self.site.link("static", ASSETS[name].name)

    @property
    def may_act(self) -> bool:
        return self.site.may_act

    @property
    def store(self) -> str:
        """The address of the store, without its password."""
        return engines.shown(self.site.client.url)

    @property
    def environment(self) -> str | None:
        return environment.name()


def render(scope: Scope, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page. Every value is escaped where the template writes it."""
    request, site = Request(scope), sites.within(scope)
    theme = request.cookies.get(THEME, "")
    shell = Shell(
        site=site,
        theme=theme if theme in THEMES else "system",
        now=site.client.now(),
        here=f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path,
        notice=_notice(request),
    )
    text = TEMPLATES.get_template(template).render(shell=shell, **values)
    return HTMLResponse(text.encode("utf-8", "replace"), status)  # stored text may have lone surrogates


def _notice(request: Request) -> str | None:
    """Return what a redirect after an act says. Only known words and a number: anybody may make a link."""
    act, count = ACTS.get(request.query_params.get("done", "")), request.query_params.get("count", "")
    if act is None or not (count.isascii() and count.isdigit() and len(count) < 10):
        return None
    return f"{words.tasks(int(count))} {'was' if int(count) == 1 else 'were'} {act.done}."


def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("afterwards.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "span": words.span,
        "ago": words.ago,
        "instant": words.instant,
        "number": words.number,
        "tasks": words.tasks,
        "json": _json,
    }
    made.globals |= {"at_most": words.at_most}
    return made


def _json(value: Any) -> str:
    """Return a value as JSON text, to be escaped like any other text."""
    return json.dumps(value, ensure_ascii=False, default=str)


TEMPLATES: Final = _templates()
