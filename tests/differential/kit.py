"""The five ways in which a situation is built: what its author imported, decorated and installed."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import fastapi
from fastapi import FastAPI

from differential import diary

SOURCES = Path(__file__).parent / "sources"
THE_LAST_TASK = "/the-last-task"


class Variant(StrEnum):
    STOCK = "stock"  # FastAPI's own class
    BARE = "bare"  # our class, plain functions, nothing installed
    PLAIN = "plain"  # our class, plain functions, Afterwards(app)
    DURABLE = "durable"  # our class, task functions, Afterwards(app)
    UNCHANGED = "unchanged"  # FastAPI's own class, task functions, Afterwards(app)


class Kit:
    """What a situation takes from the library, the same under each variant: the imports, `@task`, `Afterwards(app)`."""

    def __init__(self, variant: Variant, folder: Path) -> None:
        self.variant = variant
        self.folder = folder
        self.durable = variant in (Variant.DURABLE, Variant.UNCHANGED)
        self.installed = self.durable or variant is Variant.PLAIN
        self.url = f"sqlite:///{folder}/tasks.db"
        # Imported here, since the process that runs FastAPI's own class shall not know that we exist.
        self._ours = None if variant is Variant.STOCK else importlib.import_module("afterwards")
        imported_from = fastapi if variant is Variant.UNCHANGED else self._ours or fastapi
        self.BackgroundTasks: Any = imported_from.BackgroundTasks
        self._tasks: dict[Callable[..., Any], Any] = {}
        self._last = self.task(_the_last_task)

    def task(self, function: Callable[..., Any], **options: Any) -> Any:
        """The function under `@task`, or `@task(**options)`, where the variant decorates; else the function itself."""
        if not self.durable:
            return function
        if function not in self._tasks:
            self._tasks[function] = self._decorate(function, **options)
        return self._tasks[function]

    def app(self, **options: Any) -> FastAPI:
        """A new application, installed at once where the variant installs."""
        app = FastAPI(**options)
        self.install(app)
        return app

    def install(self, app: FastAPI) -> None:
        """`Afterwards(app, url)`, where the variant installs."""
        if self.installed:
            self._ours.Afterwards(app, self.url)

    def edited(self, name: str) -> ModuleType:
        """A file from `sources/`, with the lines changed that a user changes, imported."""
        text = (SOURCES / f"{name}.py").read_text()
        if self._ours:
            theirs = "from fastapi import BackgroundTasks, "
            kept = theirs if self.variant is Variant.UNCHANGED else "from fastapi import "
            text = text.replace(theirs, f"{self._import_line}\n{kept}")
        if self.installed:
            text = text.replace("app = FastAPI()", f"app = FastAPI()\nAfterwards(app, {self.url!r})")
        if self.durable:
            text = text.replace("# a task", "@task")
        return _imported(name, text, self.folder)

    async def add_the_last_task(self) -> None:
        """Where tasks are stored, add one behind all others: what was startable has started when it runs."""
        if self.durable:
            await self._last.enqueue()
        else:
            self._last()

    @property
    def _import_line(self) -> str:
        match self.variant:
            case Variant.DURABLE:
                return "from afterwards import Afterwards, BackgroundTasks, task"
            case Variant.UNCHANGED:
                return "from afterwards import Afterwards, task"
            case Variant.PLAIN:
                return "from afterwards import Afterwards, BackgroundTasks"
            case _:
                return "from afterwards import BackgroundTasks"

    def _decorate(self, function: Callable[..., Any], **options: Any) -> Any:
        return self._ours.task(**options)(function) if options else self._ours.task(function)


def _the_last_task() -> None:
    diary.open_gate(THE_LAST_TASK.strip("/"))


def _imported(name: str, text: str, folder: Path) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
