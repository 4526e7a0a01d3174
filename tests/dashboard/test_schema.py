"""Requests that Schemathesis makes from the API's own description, at each level, to a real server."""

import asyncio
import sys
from pathlib import Path

import pytest

from afterwards.dashboard import stream
from dashboard.fixtures import House, add, break_down
from face.serving import finished

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.fixture(autouse=True)
def short_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams end soon, so that their answers can be judged."""
    monkeypatch.setattr(stream, "LONGEST", 0.05)


DEEP, SHALLOW = 5, 1
"""Requests that are made up for each operation and kind."""


async def schemathesis(house: House, folder: Path, level: str, examples: int, *options: str) -> str:
    """Return the complaints about the answers, with what led to them; "" for none."""
    described = await house.http.get("/afterwards/api/openapi.json", headers={"authorization": "reader"})
    (folder / "openapi.json").write_text(described.text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", "openapi.json"),
        *("--url", f"{house.http.base_url}/afterwards", "--header", f"authorization: {level}"),
        *("--checks", "all", "--max-examples", str(examples), "--seed", "1", "--no-color", *options),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    text = said.decode()
    return "" if process.returncode == 0 else text[max(0, text.find("= FAILURES")) :]


async def test_who_may_act_gets_the_answers_that_are_described(house: House, tmp_path: Path) -> None:
    for call in (add.options(delay=600).call(1, other=2), add.call(1, other=2), break_down.call("the printer")):
        await house.tasks.enqueue_many([call])
    if complaints := await schemathesis(house, tmp_path, "actor", DEEP):
        pytest.fail(complaints)


@pytest.mark.parametrize(("level", "phase"), [("reader", "coverage"), ("nobody", "fuzzing"), ("unknown", "fuzzing")])
async def test_who_may_not_act_gets_the_answers_that_are_described(
    house: House, tmp_path: Path, level: str, phase: str
) -> None:
    """Those that this level gets: refusals are described, too. Unknown methods are refused like writes."""
    handle = await add.enqueue(1, other=2)
    await finished(handle)
    options = ("--phases", phase, "--exclude-checks", "unsupported_method,positive_data_acceptance")
    if complaints := await schemathesis(house, tmp_path, level, SHALLOW, *options):
        pytest.fail(complaints)
    assert (await handle.status()).attempt == 1
