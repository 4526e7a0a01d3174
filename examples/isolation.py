"""Work that holds the GIL, hangs or crashes, in processes of its own: the server keeps answering.

    uvicorn isolation:app
    curl -X POST localhost:8000/checks/thorough
    curl -X POST localhost:8000/checks/endless
    curl -X POST localhost:8000/checks/broken
    curl localhost:8000

`checks.txt` shows the results.
"""

import ctypes
import re
from pathlib import Path

from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, FailedTask, progress, task

app = FastAPI()
tasks = Afterwards(app)


def write(line: str) -> None:
    with Path("checks.txt").open("a") as checks:
        checks.write(f"{line}\n")


@task
def tell(failed: FailedTask) -> None:
    write(f"{failed.name}: {failed.message}")


@task(run_in="process")  # the process imports this module, so it must not start a server
def thorough() -> int:
    limit = 1_000_000
    prime = bytearray([1]) * limit
    prime[:2] = bytes(2)
    for n in progress(range(2, 1000), desc="sieve"):  # shown in the task's record, as in any task
        if prime[n]:
            prime[n * n :: n] = bytes(len(range(n * n, limit, n)))
    write(f"thorough: {sum(prime)} primes")
    return sum(prime)


@task(run_in="process", timeout=1, on_failure=tell)  # a thread could not be stopped; a process is killed
def endless() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")


@task(run_in="process", on_failure=tell)  # a crash is a failure of this task, which `retries` counts, and of no other
def broken() -> None:
    ctypes.string_at(0)


CHECKS = {"thorough": thorough, "endless": endless, "broken": broken}


@app.post("/checks/{kind}", status_code=202)
async def check(kind: str, background_tasks: BackgroundTasks):
    background_tasks.add_task(CHECKS[kind])
    return {"check": kind}


@app.get("/")
async def index():
    return {"message": "Still here."}
