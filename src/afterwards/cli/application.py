"""Find and import the FastAPI application of a command, by the rules of ``fastapi run``."""

import importlib
import sys
import sysconfig
import tomllib
import traceback
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from fastapi import FastAPI

from afterwards.cli.errors import NoApplication, UsageError
from afterwards.client.client import Client
from afterwards.client.installations import installations

DEFAULTS = ("main.py", "app.py", "api.py", "app/main.py", "app/app.py", "app/api.py")
"""Files that ``fastapi run`` tries when no application is named."""

USUAL_NAMES = ("app", "api")

LIBRARIES = (
    *{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")},
    str(Path(__file__).parents[1]),
    "<frozen ",  # the import system
)
"""The beginnings of the names of files whose code is not the application's own."""


class Location(NamedTuple):
    """The location of an application: a module, an attribute ('' if it is not named), and the folder to import from."""

    module: str
    attribute: str
    folder: Path


def load(given: str | None) -> FastAPI:
    """Import and return the application. Raises UsageError, whose message says what was looked for, and where.

    ``given`` is ``module:attribute``, a module or a file. Default: ``entrypoint`` of ``[tool.fastapi]`` in
    pyproject.toml, then the files that ``fastapi run`` tries. The working folder is put on ``sys.path``.
    """
    location = _locate(given)
    for folder in (str(Path.cwd()), str(location.folder)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    module = _import(location.module)
    return _attribute(module, location.attribute) if location.attribute else _only_application(module)


def installation(app: FastAPI) -> Client:
    """Return the installation of an application. Raises UsageError."""
    for client in installations:
        if client.application is not None and client.application() is app:
            return client
    raise UsageError("the application has no installation: write Afterwards(app) where the application is made")


def _locate(given: str | None) -> Location:
    named = given or _entrypoint()
    if named is None:
        return _of_file(_default_file(), "")
    before, colon, attribute = named.rpartition(":")
    name, attribute = (before, attribute) if colon and attribute.isidentifier() else (named, "")
    if name.endswith(".py") or "/" in name or Path(name).is_dir():
        return _of_file(Path(name), attribute)
    return Location(name, attribute, Path.cwd())


def _entrypoint() -> str | None:
    """The ``entrypoint`` of ``[tool.fastapi]`` in the working folder's pyproject.toml."""
    path = Path("pyproject.toml")
    if not path.is_file():
        return None
    try:
        entrypoint = tomllib.loads(path.read_text("utf-8")).get("tool", {}).get("fastapi", {}).get("entrypoint")
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"pyproject.toml cannot be read: {error}") from error
    if not isinstance(entrypoint, str | None):
        raise UsageError(
            f'pyproject.toml, [tool.fastapi] entrypoint: give a text such as "main:app", not {entrypoint!r}'
        )
    return entrypoint


def _default_file() -> Path:
    for name in DEFAULTS:
        if (path := Path(name)).is_file():
            return path
    raise NoApplication(
        f"no application is named, and {Path.cwd()} has none of {', '.join(DEFAULTS)}: give module:attribute"
    )


def _of_file(path: Path, attribute: str) -> Location:
    """Return the location of a file's module, which may be in packages."""
    found = path.resolve()
    if found.is_dir():
        found /= "__init__.py"
    if not found.is_file():
        raise UsageError(f"{path}: no such file")
    parts = [] if found.stem == "__init__" else [found.stem]
    folder = found.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return Location(".".join(parts), attribute, folder)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"there is no module {error.name!r} in {Path.cwd()}: give module:attribute") from error
        raise _import_failed(name, error) from error
    except Exception as error:  # of the application's own code
        raise _import_failed(name, error) from error


def _import_failed(name: str, error: Exception) -> UsageError:
    return UsageError(f"importing {name!r} failed: {described(error)}")


def described(error: Exception) -> str:
    """Return an exception of the application's code in one line, with the last line of that code which led to it."""
    frames = own_frames(error) or traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"


def own_frames(error: Exception) -> list[traceback.FrameSummary]:
    """Return the lines of the application's own code that led to an exception, the last one at the end."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if not frame.filename.startswith(LIBRARIES)]


def _attribute(module: ModuleType, name: str) -> FastAPI:
    found = getattr(module, name, None)
    if isinstance(found, FastAPI):
        return found
    if found is None:
        raise UsageError(f"{module.__name__!r} has no attribute {name!r}{_instead(module)}")
    raise UsageError(
        f"{module.__name__}:{name} is not a FastAPI application, but {type(found).__name__}{_instead(module)}"
    )


def _only_application(module: ModuleType) -> FastAPI:
    applications = _applications(module)
    for name in (*USUAL_NAMES, *applications):
        if name in applications:
            return applications[name]
    raise UsageError(f"{module.__name__!r} has no FastAPI application: give module:attribute")


def _applications(module: ModuleType) -> dict[str, FastAPI]:
    return {name: value for name, value in vars(module).items() if isinstance(value, FastAPI)}


def _instead(module: ModuleType) -> str:
    names = [f"{module.__name__}:{name}" for name in _applications(module)]
    return f"; did you mean {' or '.join(names)}?" if names else ""
