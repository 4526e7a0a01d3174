"""Which application a command is for."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from afterwards.cli.application import load
from afterwards.cli.errors import ExitCode, UsageError

APPLICATION = (
    "from fastapi import FastAPI\nname = __name__\napp = FastAPI(title='{}')\nother = FastAPI(title='other')\n"
)
PYPROJECT = '[tool.fastapi]\nentrypoint = "shop.web:other"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, and what a command imports from it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    modules = dict(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


def write(name: str, text: str = "") -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or APPLICATION.format(name))


@pytest.mark.parametrize(
    ("given", "title"),
    [
        ("shop.web:app", "shop/web.py"),
        ("shop.web:other", "other"),
        ("shop.web", "shop/web.py"),
        ("shop/web.py", "shop/web.py"),
        ("shop/web.py:other", "other"),
        ("./shop/web.py", "shop/web.py"),
        ("depot", "depot/__init__.py"),
        ("depot/", "depot/__init__.py"),
        (None, "main.py"),
    ],
)
def test_an_application_is_named_or_found(given: str | None, title: str) -> None:
    write("shop/__init__.py", "# a package")
    for name in ("shop/web.py", "depot/__init__.py", "main.py"):
        write(name)
    assert load(given).title == title


def test_a_file_inside_packages_is_imported_as_their_module(folder: Path) -> None:
    for name in ("src/shop/__init__.py", "src/shop/web/__init__.py"):
        write(name, "# a package")
    write("src/shop/web/main.py")
    load("src/shop/web/main.py")
    assert sys.modules["shop.web.main"].name == "shop.web.main"


@pytest.mark.parametrize("name", ["main.py", "app.py", "api.py", "app/main.py", "app/app.py", "app/api.py"])
def test_the_usual_files_are_tried(name: str) -> None:
    write(name)
    assert load(None).title == name


def test_the_entrypoint_of_pyproject_comes_before_the_usual_files() -> None:
    write("shop/__init__.py", "# a package")
    for name in ("shop/web.py", "main.py"):
        write(name)
    write("pyproject.toml", PYPROJECT)
    assert load(None).title == "other"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "no application is named, and .* has none of main.py, app.py"),
        ("nothing:app", "there is no module 'nothing' in .*: give module:attribute"),
        ("nothing.py", "nothing.py: no such file"),
        ("shop.nothing:app", "there is no module 'shop.nothing'"),
        ("shop:ap", "'shop' has no attribute 'ap'; did you mean shop:app or shop:other?"),
        ("shop:name", r"shop:name is not a FastAPI application, but str; did you mean shop:app"),
        ("empty", "'empty' has no FastAPI application: give module:attribute"),
        ("broken:app", r"importing 'broken' failed: ZeroDivisionError: division by zero \(.*broken.py, line 2\)"),
        ("needy:app", r"importing 'needy' failed: ModuleNotFoundError: No module named 'not_installed' \(.*line 1\)"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(given: str | None, said: str) -> None:
    write("shop.py")
    write("empty.py", "x = 1")
    write("broken.py", "\n1 / 0")
    write("needy.py", "import not_installed")
    with pytest.raises(UsageError, match=said) as raised:
        load(given)
    assert raised.value.code == ExitCode.USAGE
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"), [("[tool", "pyproject.toml cannot be read"), ("[tool.fastapi]\nentrypoint = 3", "give a text")]
)
def test_a_wrong_pyproject_is_said(text: str, said: str) -> None:
    write("pyproject.toml", text)
    with pytest.raises(UsageError, match=said):
        load(None)
