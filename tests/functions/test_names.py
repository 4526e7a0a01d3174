"""Under which name a task function is stored, and which two places may not share one."""

import importlib
import sys
from pathlib import Path

import pytest

from afterwards import task
from afterwards.core.errors import DuplicateName, InvalidOption, UnknownFunction
from afterwards.tasks.registry import registry


@task(name="names.first")
async def first() -> None: ...


def module(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> None:
    (folder / f"{name}.py").write_text(f"from afterwards import task\n{source}")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_name_of_two_functions_is_refused_and_both_places_are_named() -> None:
    with pytest.raises(DuplicateName) as error:

        @task(name="names.first")
        async def second() -> None: ...

    message = str(error.value)
    assert f"first ({__file__}, line {first.function.__code__.co_firstlineno})" in message
    assert f"second ({__file__}, line " in message
    assert '@task(name="...")' in message
    assert registry.get("names.first") is first


def test_a_name_of_two_modules_is_refused_and_both_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("names_one", "names_two"):
        module(tmp_path, monkeypatch, name, "@task\nasync def twice_in_modules() -> None: ...\n")
    importlib.import_module("names_one")
    with pytest.raises(DuplicateName, match=r"names_one\.py, line 2.*names_two\.py, line 2"):
        importlib.import_module("names_two")


def test_a_module_may_be_imported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "@task\nasync def reloaded() -> str:\n    return '{}'\n"
    module(tmp_path, monkeypatch, "names_reloaded", source.format("old"))
    importlib.import_module("names_reloaded")
    old = registry.get("reloaded")
    module(tmp_path, monkeypatch, "names_reloaded", "\n\n" + source.format("new and moved"))
    importlib.import_module("names_reloaded")
    assert registry.get("reloaded") is not old


def test_the_same_file_under_two_module_names_is_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``__main__`` and its module; a package on the path twice."""
    package = tmp_path / "names_package"
    package.mkdir()
    (package / "__init__.py").touch()
    module(package, monkeypatch, "names_inner", "@task\nasync def known_twice() -> None: ...\n")
    importlib.import_module("names_inner")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("names_package.names_inner")
    assert registry.get("known_twice").__module__ == "names_package.names_inner"


def test_a_factory_may_be_called_twice() -> None:
    def create_app() -> None:
        @task
        async def of_a_factory() -> None: ...

    create_app()
    create_app()
    assert registry.get("of_a_factory")


def test_a_name_that_nobody_has_is_unknown() -> None:
    with pytest.raises(UnknownFunction, match=r'no task function is named "names\.nobody"'):
        registry.get("names.nobody")


def test_a_function_may_be_known_by_the_names_of_before() -> None:
    @task(name="names.renamed", aliases=["names.old", "names.older"])
    async def renamed() -> None: ...

    assert registry.get("names.old") is registry.get("names.older") is registry.get("names.renamed") is renamed
    assert {"names.old", "names.older", "names.renamed"} <= registry.names
    assert [function for function in registry if function is renamed] == [renamed]


def test_an_alias_that_another_function_has_is_refused() -> None:
    with pytest.raises(DuplicateName, match=r"two task functions are named 'names\.first'"):

        @task(name="names.thief", aliases=["names.first"])
        async def thief() -> None: ...

    assert registry.get("names.first") is first


@pytest.mark.parametrize("aliases", ["old", ["two words"], [5]])
def test_aliases_are_names(aliases: object) -> None:
    with pytest.raises(InvalidOption):
        task(name="names.badly", aliases=aliases)
