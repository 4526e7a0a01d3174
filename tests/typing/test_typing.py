"""What type checkers say about applications: nothing about right ones, and the point about wrong ones."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = pytest.mark.timeout(300)  # without their caches, on a busy machine, type checkers take long

WRONG = """
from typing import Annotated
from fastapi import Depends
from afterwards import Afterwards, BackgroundTasks, TaskHandle, injected, task

@task
async def send(email: str, *, copies: int = 1) -> int:
    return copies

@task
def send_in_thread(email: str) -> None: ...

@task
def with_a_dependency(number: int, db: Annotated[str, Depends(str)] = injected()) -> None: ...

def plain(text: str) -> None: ...

tasks = Afterwards()

async def handler(background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(send, 5)
    background_tasks.add_task(send)
    background_tasks.add_task(send, "a@b.c", copy=2)
    background_tasks.add_task(send_in_thread, 5)
    background_tasks.add_task(plain, 5)
    background_tasks.add_task(plain, "text", "more")
    background_tasks.add_task(with_a_dependency)
    background_tasks.add_task(with_a_dependency, "5")
    background_tasks.add_task(with_a_dependency, 5, 5)
    background_tasks.add_task("send", "a@b.c")
    background_tasks.add_task(send("a@b.c"))
    background_tasks.configure(order=False)
    background_tasks.configure(session=5)
    send.options(session="session")
    await send.enqueue(5)
    send_in_thread.enqueue_sync(5)
    send.options(prio=5)
    send.options(delay="soon")
    text: str = await (await send.enqueue("a@b.c")).result()
    handle: TaskHandle[str] = await send.enqueue("a@b.c")
    background_tasks.add_task(plain, "text").id
    await tasks.enqueue_many([send.call(5)])
    await tasks.enqueue_many([send])
    await tasks.enqueue_many([send("a@b.c")])
    await tasks.enqueue_many(send.call("a@b.c"))
    await tasks.list(state="lost")
    await tasks.requeue(states=["failed"])
    await tasks.delete(since="1h")
    (await tasks.list())[0].lease_until
    send_in_thread(5)
    await send_in_thread("a@b.c")

@task(retry=3)
async def misspelt() -> None: ...

@task(session=None)
async def with_session() -> None: ...

@task(on_failure=plain)
async def badly_watched() -> None: ...
"""
"""Each line that is indented below the handler, and each decorator with arguments, is one mistake."""

MISTAKES = {
    number: line.strip()
    for number, line in enumerate(WRONG.splitlines(), start=1)
    if number > WRONG[: WRONG.index("async def handler")].count("\n") + 1 and (line.startswith(("    ", "@task(")))
}


def test_mypy_accepts_right_code_sees_its_types_and_flags_each_mistake(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml"]
    found = re.findall(r"^(.*):(\d+): error: ", checked(command, tmp_path), re.MULTILINE)
    assert [error for error in found if error[0].endswith("good.py")] == []
    assert {MISTAKES.get(int(number)) for _, number in found} == set(MISTAKES.values())


def test_pyright_accepts_right_code_sees_its_types_and_flags_each_mistake(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    told = json.loads(checked(command, tmp_path))["generalDiagnostics"]
    found = [(one["file"], one["range"]["start"]["line"] + 1) for one in told if one["severity"] == "error"]
    assert [error for error in found if error[0].endswith("good.py")] == []
    assert {MISTAKES.get(number) for _, number in found} == set(MISTAKES.values())


def checked(command: list[str], folder: Path) -> str:
    """What a type checker prints about the right code and the wrong."""
    wrong = folder / "wrong.py"
    wrong.write_text(WRONG)
    files = [str(HERE / "good.py"), str(wrong)]
    return subprocess.run([*command, *files], cwd=HERE.parents[1], capture_output=True, text=True, timeout=290).stdout
