"""Every tool that pyproject.toml names has its version pinned in requirements-dev.txt."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNPINNED = {"fastapi", "anyio"}  # whatever the newest FastAPI brings


def names(lines: list[str]) -> set[str]:
    return {
        re.match(r"[\w.-]+", line)[0].lower().replace("_", "-")  # type: ignore[index]
        for line in lines
        if line and not line.startswith("#")
    }


def test_every_tool_is_pinned() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    pinned = names((ROOT / "requirements-dev.txt").read_text().splitlines())
    assert names(groups["test"] + groups["check"]) - UNPINNED <= pinned, "run `make lock`"
